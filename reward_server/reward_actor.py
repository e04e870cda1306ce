"""The reward server: one handle that answers all callers, in front of any number of replicas.

    server = start_reward_server(config.reward, dataset="qm9")
    answer = await server.score.remote(query, caller="actor-3")
    stop_reward_server(server)

The actor behind the handle holds no force field: it takes queries in, keeps callers waiting fairly, gives the
queries to replicas (``replica_actor``) and replaces those that die. It changes nothing elsewhere, so Ray may
restart it and retry what was in flight; its replicas end with it.

Plain actors and not Ray Serve: a call costs about the same either way (``tests/benchmarks/
serving_overhead.py``), while turns between callers, answers counted once and asking elsewhere when a replica
is killed are ours to keep here, and Serve needs a web stack that nothing else here uses.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from elign.common.config import RewardSettings
from elign.common.errors import ForceFieldError
from elign.common.meter import Meter, NoMeter
from elign.common.molecules import Molecules
from elign.common.process_usage import ProcessUsage
from elign.common.scoring import ForceFieldResult, RewardAnswer, RewardQuery
from elign.reward_server.dispatcher import Dispatcher, DispatchStats, ReplicaLost
from elign.reward_server.evaluation_queue import QueueStats
from elign.reward_server.repeats import Repeats, query_digest
from elign.reward_server.replica_actor import ReplicaHandle, start_replica
from elign.reward_server.server_metrics import REPORT_EVERY_S, ServerMetrics

CALLS_AT_ONCE = 1_000
"""Calls that the server holds at a time; further ones wait at their callers."""


@dataclass(frozen=True)
class ServerStats:
    """dispatch: what the server did since it (re)started. replicas: what those that are up did, together.

    joined: queries answered with what an equal one was answered. healthy: all replicas are up.
    """

    process_id: int
    dispatch: DispatchStats
    replicas: QueueStats
    joined: int
    healthy: bool


class RewardServer:
    """The actor's class."""

    def __init__(
        self, settings: RewardSettings, dataset: str, make_meter: Callable[[], Meter] = NoMeter
    ) -> None:
        """dataset: "qm9" or "geom", whose bond tables decide on stability. See ``refusal``."""
        self._number = settings.replicas
        self._metrics = ServerMetrics(make_meter())
        self._reporting: asyncio.Task[None] | None = None
        self._repeats: Repeats[RewardAnswer] = Repeats()
        self._dispatcher = Dispatcher(
            lambda: start_replica(settings, dataset),
            replicas=settings.replicas,
            timeout_s=settings.timeout_s,
        )
        self._calls = 0

    async def refusal(self) -> str | None:
        """Why the replicas cannot be started; None when all of them are up."""
        try:
            await self._dispatcher.ready()
        except ForceFieldError as error:
            return str(error)
        return None

    async def ping(self) -> None:
        """Proof of life (see ``front_watch``)."""

    async def score(self, query: RewardQuery, caller: str = "") -> RewardAnswer:
        """The rewards of one group. Molecules that fail are masked in the answer.

        caller: who asks; callers are served in turns. Asked again, the answer is the same.
        """
        size = len(query.molecules) + len(query.predicted)
        with self._counted():
            return await self._repeats.answer(
                query_digest(query), lambda: self._dispatcher.ask(("score", query), caller=caller, size=size)
            )

    async def evaluate(self, molecules: Molecules, caller: str = "") -> ForceFieldResult:
        """Energies and forces alone."""
        with self._counted():
            result: ForceFieldResult = await self._dispatcher.ask(
                ("evaluate", molecules), caller=caller, size=len(molecules)
            )
        return result

    async def stats(self) -> ServerStats:
        """Counts and health; see ``ServerStats``."""
        total, up = QueueStats(), 0
        for replica in self._dispatcher.replicas():
            assert isinstance(replica, ReplicaHandle)
            try:
                total, up = total + await replica.stats(), up + 1
            except ReplicaLost:
                continue  # counted as not up; whoever asks it next has it replaced
        return ServerStats(
            os.getpid(), self._dispatcher.stats(), total, self._repeats.joined, up == self._number
        )

    async def usages(self) -> list[ProcessUsage]:
        """What each replica that is up has used so far."""
        used = []
        for replica in self._dispatcher.replicas():
            assert isinstance(replica, ReplicaHandle)
            try:
                used.append(await replica.usage())
            except ReplicaLost:
                continue  # as above
        return used

    async def drain(self) -> None:
        """Take no more queries; returns when all that were taken are answered."""
        await self._dispatcher.drain()
        while self._calls:
            await asyncio.sleep(0.01)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._report())
        self._calls += 1
        try:
            with self._metrics.timed():
                yield
        finally:
            self._calls -= 1

    async def _report(self) -> None:
        """Report now and then, for as long as the server lives."""
        while True:
            stats = await self.stats()
            self._metrics.report(stats.dispatch, stats.replicas)
            await asyncio.sleep(REPORT_EVERY_S)


def start_reward_server(
    settings: RewardSettings, dataset: str, make_meter: Callable[[], Meter] = NoMeter
) -> Any:
    """A handle to a running ``RewardServer`` on the caller's node; returns when its force fields are loaded.

    make_meter: called where the server runs. Raises ForceFieldError when one cannot be loaded.
    """
    actor_class = ray.remote(RewardServer).options(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=CALLS_AT_ONCE,
        # beside the driver, with which it ends: elsewhere it would be in the way of a drain. Ray takes a soft
        # wish of an actor without CPUs for none.
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    )
    server = actor_class.remote(settings, dataset, make_meter)
    try:
        refusal = ray.get(server.refusal.remote())
    except RayActorError as error:
        raise ForceFieldError(f"the reward server died while loading {settings.force_field!r}") from error
    if refusal is not None:
        ray.kill(server)
        raise ForceFieldError(refusal)
    return server


def stop_reward_server(server: Any) -> None:
    """End it and its replicas when everything it has taken is answered."""
    ray.get(server.drain.remote())
    with suppress(RayActorError):  # says that it has gone; ray.kill would take answers on their way along
        ray.get(server.__ray_terminate__.options(max_task_retries=0).remote())
