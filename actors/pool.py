"""A pool of rollout actors: plans go in, scored trajectories come out, and a dead actor costs only time.

Each actor has at most one plan. When it dies or takes too long, its plan goes back into the queue and the
actor must answer a ping before it gets another. Results are kept by group id, so none is used twice, and come
back in that order, so a run does not depend on who was faster.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from elign.actors.rollout_actor import PublishedWeights, RolloutActor
from elign.common.config import RewardSettings, RolloutSettings
from elign.common.errors import RolloutError
from elign.common.process_usage import ProcessUsage
from elign.common.rollout import Collection, RolloutPlan, ScoredTrajectory

POLL_S = 0.25


@dataclass
class _Worker:
    """An actor and what it is asked: ``request`` of a plan, or a ``ping`` while its health is in doubt."""

    handle: Any
    plan: RolloutPlan | None = None
    request: Any = None
    ping: Any = None
    deadline: float = 0.0

    @property
    def idle(self) -> bool:
        return self.request is None and self.ping is None


@dataclass
class _Work:
    """One ``collect``: what is still to do, what is done, what went wrong."""

    queue: deque[RolloutPlan]
    results: dict[int, ScoredTrajectory] = field(default_factory=dict)
    causes: dict[int, list[str]] = field(default_factory=dict)
    plans_rerun: int = 0


class RolloutPool:
    """A fixed number of actors. ``should_stop`` is asked while waiting; True ends ``collect`` at once."""

    def __init__(
        self,
        policy_spec: dict[str, Any],
        rollout: RolloutSettings,
        reward: RewardSettings,
        reward_server: Any,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._arguments = (policy_spec, rollout, reward)
        self._reward_server = reward_server
        self._settings = rollout
        self._should_stop = should_stop
        self._weights: PublishedWeights | None = None
        self._workers = [_Worker(self._start_actor()) for _ in range(rollout.actors)]

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Later plans are sampled with these weights; they are stored once and fetched once by each actor."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in weights.items()}
        self._weights = PublishedWeights([ray.put(arrays)], version)

    def collect(self, plans: Sequence[RolloutPlan]) -> Collection:
        """Run every plan to its end, whatever happens to the actors.

        Raises RolloutError, naming the causes, when a plan failed ``max_tries`` times; KeyboardInterrupt when
        ``should_stop`` says so.
        """
        work = _Work(deque(plans))
        while len(work.results) < len(plans):
            if self._should_stop():
                raise KeyboardInterrupt
            self._dispatch(work)
            waiting = [w.request if w.request is not None else w.ping for w in self._workers if not w.idle]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL_S)
            for worker in self._workers:
                if worker.request is not None and worker.request in ready:
                    self._receive(worker, work)
                elif worker.ping is not None and worker.ping in ready:
                    self._receive_ping(worker)
            self._end_overdue(work)
        return Collection([work.results[group] for group in sorted(work.results)], work.plans_rerun)

    def process_ids(self) -> list[int]:
        """Of the actors, for logs and tests; waits for those that are starting."""
        return [int(pid) for pid in ray.get([worker.handle.ping.remote() for worker in self._workers])]

    def usages(self) -> list[ProcessUsage]:
        """What each actor's process has used so far; waits for those that are starting."""
        usages: list[ProcessUsage] = ray.get([worker.handle.usage.remote() for worker in self._workers])
        return usages

    def stop(self) -> None:
        """End the actors."""
        for worker in self._workers:
            ray.kill(worker.handle)
        self._workers = []

    def _start_actor(self) -> Any:
        # not in the placement group of whoever builds the pool: Tune must not count these actors as a trial's
        options = {
            "num_cpus": self._settings.cpus_per_actor,
            "num_gpus": self._settings.gpus_per_actor,
            "max_restarts": -1,
            "max_task_retries": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=None),
        }
        return ray.remote(RolloutActor).options(**options).remote(*self._arguments)

    def _dispatch(self, work: _Work) -> None:
        for worker in self._workers:
            if worker.idle and work.queue:
                worker.plan = work.queue.popleft()
                worker.request = worker.handle.run.remote(worker.plan, self._weights, self._reward_server)
                worker.deadline = time.monotonic() + self._settings.plan_timeout_s

    def _receive(self, worker: _Worker, work: _Work) -> None:
        request, plan = worker.request, worker.plan
        assert plan is not None
        worker.request = worker.plan = None
        try:
            work.results[plan.group_id] = ray.get(request)
        except RayTaskError as error:
            self._requeue(plan, f"{type(error.cause).__name__}: {error.cause}", work)
        except RayActorError as error:
            self._requeue(plan, f"the actor died ({type(error).__name__})", work)
            self._doubt(worker, error)

    def _requeue(self, plan: RolloutPlan, cause: str, work: _Work) -> None:
        causes = work.causes.setdefault(plan.group_id, [])
        causes.append(cause)
        if len(causes) >= self._settings.max_tries:
            tries = "; ".join(f"try {i}: {text}" for i, text in enumerate(causes, 1))
            raise RolloutError(
                f"group {plan.group_id} ({plan.num_samples} molecules of {plan.num_atoms} atoms) failed "
                f"rollout.max_tries = {self._settings.max_tries} times: {tries}"
            )
        work.plans_rerun += 1
        work.queue.appendleft(plan)

    def _doubt(self, worker: _Worker, error: RayActorError) -> None:
        """Ask for a sign of life; an actor that Ray has given up is replaced."""
        if isinstance(error, ActorDiedError):
            worker.handle = self._start_actor()
        worker.ping = worker.handle.ping.remote()

    def _receive_ping(self, worker: _Worker) -> None:
        ping, worker.ping = worker.ping, None
        try:
            ray.get(ping)
        except RayActorError as error:
            time.sleep(POLL_S)  # restarting: calls bounce until it is up
            self._doubt(worker, error)

    def _end_overdue(self, work: _Work) -> None:
        for worker in self._workers:
            if worker.request is not None and time.monotonic() > worker.deadline:
                plan, worker.request, worker.plan = worker.plan, None, None
                assert plan is not None
                # killed, not only forgotten: its work must not hold up the next plan
                ray.kill(worker.handle, no_restart=False)
                worker.ping = worker.handle.ping.remote()
                limit = self._settings.plan_timeout_s
                self._requeue(plan, f"no answer within rollout.plan_timeout_s = {limit:g} s", work)
