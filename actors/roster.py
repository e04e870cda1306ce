"""Who is in the pool: actors come up in the background, fall under suspicion, drain and are replaced.

    starting --answered--> up --plan failed with the actor--> suspect --answered--> up
       up, starting --its node drains, or too many--> draining --nothing left--> gone
       any --died, or silent for too long--> gone

``reconcile`` brings the number of those that are not draining to ``target``. An actor that Ray cannot place
yet stays ``starting``: its demand is what asks the cluster's autoscaler for a node.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from elign.actors.rollout_actor import Whereabouts
from elign.common.errors import RolloutError
from elign.common.pool_status import ActorStatus
from elign.common.rollout import RolloutPlan

START_TRIES = 5
"""Actors in a row that may die while starting, when no other is there, before the run gives up."""
SUSPECT_LIMIT_S = 30.0
PING_EVERY_S = 2.0
PATIENCE_S = 120.0
_LONGEST_PAUSE_S = 30.0
log = logging.getLogger("elign")

Later = Callable[[Any, Callable[[Any], None]], None]
"""``later(reference, callback)``: callback gets the result, or the exception, in the pool's own thread."""


class State(StrEnum):
    STARTING = "starting"
    UP = "up"
    SUSPECT = "suspect"
    DRAINING = "draining"


@dataclass(eq=False)
class Member:
    """An actor. sampling: the plan it works on; judged: groups whose rewards it is owed.

    since: when what it does last changed, by the monotonic clock.
    """

    handle: Any
    state: State = State.STARTING
    where: Whereabouts | None = None
    sampling: RolloutPlan | None = None
    judged: dict[int, RolloutPlan] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    pinged: bool = False
    next_ping: float = 0.0

    @property
    def plans(self) -> list[RolloutPlan]:
        """All that would have to be done again without it."""
        return [*([] if self.sampling is None else [self.sampling]), *self.judged.values()]

    def change(self, state: State) -> None:
        self.state, self.since = state, time.monotonic()

    def status(self) -> ActorStatus:
        where, plan = self.where, self.sampling
        return ActorStatus(
            state=self.state.value,
            process_id=None if where is None else where.process_id,
            node_id=None if where is None else where.node_id,
            group=None if plan is None else plan.group_id,
        )


class Roster:
    """See the module; used from the pool's thread alone."""

    def __init__(
        self,
        start_actor: Callable[[], Any],
        later: Later,
        lost: Callable[[Member, str], None],
        target: int,
    ) -> None:
        """lost: told of every member that is gone or under suspicion, with the cause; it takes its plans."""
        self._start_actor, self._later, self._lost = start_actor, later, lost
        self.target = target
        self.members: list[Member] = []
        self.num_lost = 0
        self._failures = 0
        self._not_before = 0.0
        self._warned = False

    def in_state(self, state: State) -> list[Member]:
        return [member for member in self.members if member.state is state]

    def reconcile(self, draining_nodes: frozenset[str]) -> None:
        """One step towards the target; never waits."""
        for member in self.members:
            if member.where is not None and member.where.node_id in draining_nodes:
                self._drain(member)
        lasting = [member for member in self.members if member.state is not State.DRAINING]
        if time.monotonic() >= self._not_before:
            for _ in range(self.target - len(lasting)):
                self._start()
        # those that are of least use first, and of equals the newest
        newest_first = lasting[::-1]
        by_use = sorted(newest_first, key=lambda m: (m.state is State.UP, m.sampling is not None))
        for member in by_use[: max(len(lasting) - self.target, 0)]:
            self._drain(member)
        for member in self.in_state(State.DRAINING):
            if not member.plans:
                self.end(member)
        for member in [*self.in_state(State.UP), *self.in_state(State.SUSPECT)]:
            self._question(member)
        self._warn_when_alone()

    def suspect(self, member: Member, error: RayError) -> None:
        """A call ended with ``error``: the actor is dead, or out of reach for now."""
        if member not in self.members:
            return
        if isinstance(error, ActorDiedError) or member.state is State.DRAINING:
            self.num_lost += 1
            self._remove(member, f"the actor died ({type(error).__name__})")
            return
        self._lost(member, f"the actor cannot be reached ({type(error).__name__})")
        if member.state is State.UP:
            member.change(State.SUSPECT)
            member.next_ping = 0.0

    def end(self, member: Member, failure: str | None = None) -> None:
        """Kill it, whatever it does; failure: what is wrong with it, None where it is only superfluous."""
        ray.kill(member.handle)
        self.num_lost += failure is not None
        self._remove(member, failure or "the actor was ended")

    def _warn_when_alone(self) -> None:
        """Once, when not a single actor has found a place: it may be that none ever will."""
        waiting = self.in_state(State.STARTING)
        if self._warned or len(waiting) < len(self.members) or not waiting:
            return
        if time.monotonic() - waiting[0].since > PATIENCE_S:
            self._warned = True
            log.warning(
                "no rollout actor is up after %g s; the cluster may have no room for one "
                "(actors.num_cpus, actors.num_gpus)",
                PATIENCE_S,
            )

    def _start(self) -> None:
        member = Member(self._start_actor())
        self.members.append(member)
        self._later(member.handle.warm_up.remote(), lambda answer: self._warmed_up(member, answer))

    def _warmed_up(self, member: Member, answer: Any) -> None:
        if member not in self.members:
            return
        if isinstance(answer, Whereabouts):
            member.where, self._failures = answer, 0
            if member.state is State.STARTING:
                member.change(State.UP)
            return
        self.members.remove(member)
        self.num_lost += 1
        self._failures += 1
        self._not_before = time.monotonic() + min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_S)
        if self._failures >= START_TRIES and not self.in_state(State.UP):
            raise RolloutError(
                f"no rollout actor can be started; the last of {self._failures} tries: {_last_line(answer)}"
            )

    def _drain(self, member: Member) -> None:
        """No more plans; what it has it may finish."""
        if member.state in (State.STARTING, State.SUSPECT):
            self.end(member)
        elif member.state is State.UP:
            member.state = State.DRAINING  # ``since`` goes on: it may hang over its last plan

    def _question(self, member: Member) -> None:
        """Ask for a sign of life now and then; a suspect that stays silent is replaced.

        An actor answers between two plans; how long one may take is not decided here.
        """
        now = time.monotonic()
        if member.state is State.SUSPECT and now - member.since > SUSPECT_LIMIT_S:
            self.end(member, f"the actor gave no sign of life for {SUSPECT_LIMIT_S:g} s")
        elif not member.pinged and now >= member.next_ping:
            member.pinged = True
            self._later(member.handle.ping.remote(), lambda answer: self._pinged(member, answer))

    def _pinged(self, member: Member, answer: Any) -> None:
        member.pinged, member.next_ping = False, time.monotonic() + PING_EVERY_S
        if isinstance(answer, ActorDiedError) or (isinstance(answer, RayError) and member.state is State.UP):
            self.suspect(member, answer)
        elif answer is None and member.state is State.SUSPECT:
            member.change(State.UP)

    def _remove(self, member: Member, cause: str) -> None:
        self.members.remove(member)
        self._lost(member, cause)


def _last_line(error: Any) -> str:
    """What is left of Ray's story."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
