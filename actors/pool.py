"""An elastic pool of rollout actors: plans go in, scored trajectories come out, whatever happens to actors.

    pool = RolloutPool(spec, config, reward_server)
    pool.publish(weights, version=0)
    pool.submit(plans)
    collection = pool.take(len(plans))

A thread of the pool gives each idle actor the next plan, and passes its molecules' rewards on while the actor
samples the next: nobody waits for an actor that comes, goes or hangs (``roster``), and each plan has one
result (``worklist``). Plans carry their seeds, so who samples them does not matter.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from torch import Tensor

from elign.actors.draining import draining_nodes
from elign.actors.rollout_actor import PublishedWeights, Sampled, start_rollout_actor
from elign.actors.roster import Member, Roster, State
from elign.actors.worklist import WorkList
from elign.common.config import TrainConfig
from elign.common.pool_status import NoControl, PoolControl, PoolStatus
from elign.common.process_usage import ProcessUsage
from elign.common.rollout import Collection, RolloutPlan, ScoredTrajectory
from elign.common.scoring import RewardAnswer

POLL_S = 0.25
LOOK_ROUND_S = 0.5
"""Between looks at draining nodes, the wanted size and time limits."""


class RolloutPool:
    """See the module. ``should_stop`` is asked while waiting; True ends ``take`` at once."""

    def __init__(
        self,
        policy_spec: dict[str, Any],
        config: TrainConfig,
        reward_server: Any,
        should_stop: Callable[[], bool] = lambda: False,
        control: PoolControl | None = None,
    ) -> None:
        self._arguments = (policy_spec, config.rollout, config.reward, config.actors)
        self._settings = config.actors
        # a replica that hangs is replaced by the server; who waits longer than that waits in vain
        self._reward_limit_s = 3 * config.reward.timeout_s
        self._reward_server = reward_server
        self._should_stop = should_stop
        self._control = control or NoControl()
        self._weights: PublishedWeights | None = None
        self._work = WorkList(config.actors.max_tries)
        self._roster = Roster(self._start_actor, self._later, self._lost, config.actors.max)
        self._rewards_due: dict[int, float] = {}
        self._actor_seconds = self._waiting_seconds = 0.0
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="rollout-pool", daemon=True)
        self._thread.start()

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Plans given out from now on are sampled with these weights: stored once, fetched once an actor."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in weights.items()}
        published = PublishedWeights([ray.put(arrays)], version)
        with self._changed:
            self._weights = published

    def submit(self, plans: Sequence[RolloutPlan]) -> None:
        """Let the actors begin with these plans as soon as they can; ``publish`` must have come before."""
        with self._changed:
            self._work.add(plans)
        self._events.put(lambda: None)

    def forget(self) -> None:
        """Drop all plans, whatever has become of them."""
        with self._changed:
            self._work.clear()

    def take(self, number: int) -> Collection:
        """Wait until that many plans are finished, one way or the other, and take the lowest group ids.

        Raises KeyboardInterrupt when ``should_stop`` says so, RolloutError when no actor can be started.
        """
        with self._changed:
            while self._work.num_finished < number:
                if self._failure is not None:
                    raise self._failure
                if self._should_stop():
                    raise KeyboardInterrupt
                self._changed.wait(POLL_S)
            scored, set_aside, rerun = self._work.take(number)
            collection = Collection(scored, rerun, set_aside, self._actor_seconds, self._waiting_seconds)
            self._actor_seconds = self._waiting_seconds = 0.0
            return collection

    def status(self) -> PoolStatus:
        """The actors and the plans as they are now."""
        with self._changed:
            return self._status()

    def wait_until_up(self) -> None:
        """Until as many actors as are wanted have joined."""
        with self._changed:
            while len(self._roster.in_state(State.UP)) < self._roster.target:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait(POLL_S)

    def usages(self) -> list[ProcessUsage]:
        """What each actor's process has used so far; waits for those that are starting."""
        self.wait_until_up()
        with self._changed:
            handles = [member.handle for member in self._roster.in_state(State.UP)]
        usages: list[ProcessUsage] = ray.get([handle.usage.remote() for handle in handles])
        return usages

    def stop(self) -> None:
        """End the actors."""
        self._stopped = True
        self._events.put(lambda: None)
        self._thread.join()
        for member in self._roster.members:
            ray.kill(member.handle)

    def _run(self) -> None:
        """The pool's thread: what happens, one thing after the other."""
        seen = looked = time.monotonic()
        try:
            while not self._stopped:
                events = self._next_events()
                with self._changed:
                    now = time.monotonic()
                    self._count_time(now - seen)
                    seen = now
                    for event in events:
                        event()
                    if now - looked > LOOK_ROUND_S or not self._roster.members:
                        self._look_round(now)
                        looked = now
                    self._dispatch()
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  (raised again where somebody waits for results)
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _count_time(self, seconds: float) -> None:
        """Of the time since the last event, in which no actor changed what it does."""
        up = self._roster.in_state(State.UP)
        self._actor_seconds += seconds * len(up)
        self._waiting_seconds += seconds * sum(m.sampling is None and bool(m.judged) for m in up)

    def _next_events(self) -> list[Callable[[], None]]:
        """All that are there; waits a moment for the first."""
        try:
            events = [self._events.get(timeout=POLL_S)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def _look_round(self, now: float) -> None:
        """What no event tells: the wanted size, nodes that drain, time that has run out."""
        wanted = self._control.wanted_actors()
        if wanted is not None:
            self._roster.target = min(max(wanted, self._settings.min), self._settings.max)
        limit = self._settings.plan_timeout_s
        for member in list(self._roster.members):
            if member.sampling is not None and now - member.since > limit:
                self._roster.end(member, f"no answer within actors.plan_timeout_s = {limit:g} s")
            for group in [g for g in member.judged if now > self._rewards_due[g]]:
                cause = f"the reward server gave no answer within {self._reward_limit_s:g} s"
                self._work.fail(member.judged.pop(group), cause)
        self._roster.reconcile(draining_nodes())
        self._control.report(self._status())

    def _dispatch(self) -> None:
        for member in self._roster.in_state(State.UP):
            if member.sampling is not None:
                continue
            plan = self._work.next()
            if plan is None:
                return
            member.sampling, member.since = plan, time.monotonic()
            request = member.handle.sample.remote(plan, self._weights, self._reward_server)
            self._later(request, partial(self._sampled, member, plan))

    def _sampled(self, member: Member, plan: RolloutPlan, answer: Any) -> None:
        if member.sampling is not plan:
            return  # it was taken away from this actor
        if isinstance(answer, RayError) and not isinstance(answer, RayTaskError):
            self._roster.suspect(member, answer)
            return
        member.sampling = None
        if isinstance(answer, Sampled):
            member.judged[plan.group_id] = plan
            self._rewards_due[plan.group_id] = time.monotonic() + self._reward_limit_s
            self._later(answer.rewards[0], partial(self._scored, member, plan, answer))
        else:
            self._work.fail(plan, _cause(answer))

    def _scored(self, member: Member, plan: RolloutPlan, sampled: Sampled, answer: Any) -> None:
        if member.judged.get(plan.group_id) is not plan:
            return
        if isinstance(answer, ObjectLostError):  # it went with its owner, the actor
            self._roster.suspect(member, answer)
            return
        del member.judged[plan.group_id]
        if isinstance(answer, RewardAnswer):
            self._work.complete(ScoredTrajectory(sampled.trajectory, answer, sampled.seconds))
        else:
            self._work.fail(plan, _cause(answer))

    def _lost(self, member: Member, cause: str) -> None:
        """Its plans go to others; only the one it was sampling can have been the cause."""
        if member.sampling is not None:
            self._work.fail(member.sampling, cause)
        for plan in member.judged.values():
            self._work.put_back(plan)
        member.sampling, member.judged = None, {}

    def _later(self, reference: Any, callback: Callable[[Any], None]) -> None:
        """``callback(result or exception)`` in the pool's thread."""

        def done(future: Any) -> None:
            error = future.exception()
            self._events.put(partial(callback, future.result() if error is None else error))

        reference.future().add_done_callback(done)

    def _start_actor(self) -> Any:
        return start_rollout_actor(*self._arguments)

    def _status(self) -> PoolStatus:
        return PoolStatus(
            target=self._roster.target,
            actors=tuple(member.status() for member in self._roster.members),
            waiting=self._work.num_waiting,
            lost=self._roster.num_lost,
            **asdict(self._work.counts),
        )


def _cause(error: Any) -> str:
    """What an actor or the reward server raised, without Ray's story around it."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}"
