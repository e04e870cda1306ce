"""The bookkeeping of plans: every plan ends once, completed or set aside."""

from __future__ import annotations

from typing import Any, cast

import pytest

from elign.actors.worklist import WorkList
from elign.common.rollout import RolloutPlan, ScoredTrajectory


class Result:
    """As much of a ``ScoredTrajectory`` as the list looks at."""

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan = plan
        self.trajectory = self


def result(plan: RolloutPlan | None) -> ScoredTrajectory:
    assert plan is not None
    return cast(Any, Result(plan))


def plan(group: int) -> RolloutPlan:
    return RolloutPlan(group, 4, 2, seed=group)


def taken(work: WorkList, number: int) -> list[int]:
    return [scored.trajectory.plan.group_id for scored in work.take(number)[0]]


def test_second_result_of_a_plan_is_ignored() -> None:
    work = WorkList(max_tries=3)
    work.add([plan(0), plan(1)])
    first = work.next()
    assert first is not None
    work.complete(result(first))
    work.complete(result(first))
    work.fail(first, "too late")
    assert (work.counts.completed, work.num_finished, work.num_waiting) == (1, 1, 1)
    assert taken(work, 5) == [0]
    work.complete(result(first))
    assert work.num_finished == 0


def test_failed_plan_comes_first_and_is_set_aside_after_its_tries() -> None:
    work = WorkList(max_tries=2)
    work.add([plan(0), plan(1)])
    poison = work.next()
    assert poison is not None
    work.fail(poison, "one")
    assert work.next() is poison
    work.fail(poison, "two")
    work.complete(result(work.next()))
    scored, set_aside, rerun = work.take(2)
    assert [s.trajectory.plan.group_id for s in scored] == [1]
    assert [(s.plan.group_id, s.causes) for s in set_aside] == [(0, ("one", "two"))]
    assert rerun == 1
    assert str(set_aside[0]) == "group 0 (2 molecules of 4 atoms): try 1: one; try 2: two"


def test_plan_that_is_put_back_has_all_its_tries_left() -> None:
    work = WorkList(max_tries=1)
    work.add([plan(0)])
    for _ in range(5):
        mine = work.next()
        assert mine is not None
        work.put_back(mine)
    work.complete(result(work.next()))
    assert taken(work, 1) == [0]
    assert (work.counts.rerun, work.counts.set_aside) == (5, 0)


def test_lowest_groups_are_taken_first() -> None:
    work = WorkList(max_tries=1)
    work.add([plan(g) for g in (3, 1, 2)])
    while (mine := work.next()) is not None:
        work.complete(result(mine))
    assert taken(work, 2) == [1, 2]
    assert taken(work, 2) == [3]


def test_group_that_is_still_there_is_refused_until_cleared() -> None:
    work = WorkList(max_tries=1)
    work.add([plan(0)])
    with pytest.raises(ValueError, match="group 0 was asked for twice"):
        work.add([plan(0)])
    old = work.next()
    work.clear()
    work.complete(result(old))
    assert work.num_finished == 0
    work.add([plan(0)])
    assert work.counts.issued == 1
