"""Plans from their submission to their one result: what waits, what failed how often, what is done.

Plain bookkeeping without Ray. A plan is known by its group id; it is open from ``add`` until it is completed
or set aside, and whatever comes for a plan that is not open is ignored, so no result is used twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from elign.common.rollout import RolloutPlan, ScoredTrajectory, SetAside


@dataclass
class WorkCounts:
    """Since the list was made or cleared; issued = completed + set_aside + what is open."""

    issued: int = 0
    completed: int = 0
    rerun: int = 0
    set_aside: int = 0


@dataclass
class _Open:
    plan: RolloutPlan
    causes: list[str] = field(default_factory=list)


class WorkList:
    """See the module; not safe for several threads."""

    def __init__(self, max_tries: int) -> None:
        self._max_tries = max_tries
        self._open: dict[int, _Open] = {}
        self._queue: deque[int] = deque()
        self._done: dict[int, ScoredTrajectory] = {}
        self._set_aside: dict[int, SetAside] = {}
        self._rerun = 0
        self.counts = WorkCounts()

    @property
    def num_waiting(self) -> int:
        """Plans that no actor has."""
        return len(self._queue)

    @property
    def num_finished(self) -> int:
        """Results, and plans set aside, that nobody has taken yet."""
        return len(self._done) + len(self._set_aside)

    def add(self, plans: Iterable[RolloutPlan]) -> None:
        """Raises ValueError for a group that is still open or not taken yet."""
        for plan in plans:
            if plan.group_id in {**self._open, **self._done, **self._set_aside}:
                raise ValueError(f"group {plan.group_id} was asked for twice")
            self._open[plan.group_id] = _Open(plan)
            self._queue.append(plan.group_id)
            self.counts.issued += 1

    def clear(self) -> None:
        """As if nothing had been asked for."""
        self._open.clear()
        self._queue.clear()
        self._done.clear()
        self._set_aside.clear()
        self._rerun, self.counts = 0, WorkCounts()

    def next(self) -> RolloutPlan | None:
        """The plan whose turn it is; one that failed before comes first."""
        return self._open[self._queue.popleft()].plan if self._queue else None

    def complete(self, result: ScoredTrajectory) -> None:
        """Keep a result; a second one of the same plan is ignored."""
        group = result.trajectory.plan.group_id
        if self._open.pop(group, None) is not None:
            self._done[group] = result
            self.counts.completed += 1

    def fail(self, plan: RolloutPlan, cause: str) -> None:
        """The plan waits for another try, or is set aside after ``max_tries``."""
        entry = self._open.get(plan.group_id)
        if entry is None:
            return
        entry.causes.append(cause)
        if len(entry.causes) < self._max_tries:
            self.put_back(plan)
            return
        self._set_aside[plan.group_id] = SetAside(plan, tuple(entry.causes))
        del self._open[plan.group_id]
        self.counts.set_aside += 1

    def put_back(self, plan: RolloutPlan) -> None:
        """Another try that does not count, for what happened was not the plan's doing."""
        if plan.group_id in self._open:
            self._queue.appendleft(plan.group_id)
            self._rerun += 1
            self.counts.rerun += 1

    def take(self, number: int) -> tuple[list[ScoredTrajectory], tuple[SetAside, ...], int]:
        """Up to ``number`` finished plans, lowest group ids first: (results, those set aside, reruns).

        reruns: how often any plan was given out again since the last ``take``.
        """
        groups = sorted([*self._done, *self._set_aside])[:number]
        rerun, self._rerun = self._rerun, 0
        scored = [self._done.pop(group) for group in groups if group in self._done]
        set_aside = tuple(self._set_aside.pop(group) for group in groups if group in self._set_aside)
        return scored, set_aside, rerun
