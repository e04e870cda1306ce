"""Which groups an iteration learns from: its own in turn, or ahead within the lag, each used once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from elign.common.config import TrainConfig
from elign.common.errors import RolloutError
from elign.common.prompts import Prompts
from elign.common.rollout import Collection, RolloutPlan, ScoredTrajectory, SetAside
from elign.learner.plan_feed import PlanFeed, PlanState


class Made:
    """As much of a ``ScoredTrajectory`` as the feed looks at."""

    def __init__(self, plan: RolloutPlan, version: int) -> None:
        self.plan, self.policy_version, self.seconds = plan, version, {"sampling": 1.0}
        self.trajectory = self


class Source:
    """Samples at once what it is told to; ``slow`` ones of the first policy come two versions later."""

    def __init__(self, slow: frozenset[int] = frozenset(), failing: frozenset[int] = frozenset()) -> None:
        self.slow, self.failing, self.version = slow, failing, 0
        self.done: list[ScoredTrajectory | SetAside] = []

    def publish(self, weights: Mapping[str, Any], version: int) -> None:  # noqa: ARG002
        self.version = version

    def submit(self, plans: Sequence[RolloutPlan]) -> None:
        for plan in plans:
            made = SetAside(plan, ("no",)) if plan.group_id in self.failing else Made(plan, self.version)
            self.done.append(cast(Any, made))

    def take(self, number: int) -> Collection:
        order = sorted(self.done, key=lambda d: not isinstance(d, SetAside) and self._is_slow(d))
        taken, self.done = order[:number], order[number:]
        set_aside = tuple(d for d in taken if isinstance(d, SetAside))
        return Collection([d for d in taken if not isinstance(d, SetAside)], 0, set_aside, 10.0, 1.0)

    def _is_slow(self, made: ScoredTrajectory) -> bool:
        first = made.trajectory.policy_version == 0
        return made.trajectory.plan.group_id in self.slow and first and self.version < 2

    def forget(self) -> None:
        self.done = []

    def stop(self) -> None:
        """Nothing is held."""


def feed(source: Source, max_policy_lag: int, iterations: int = 20) -> PlanFeed:
    rollout = {"groups": 2, "max_policy_lag": max_policy_lag}
    config = TrainConfig.model_validate({"rollout": rollout, "run": {"iterations": iterations}})
    return PlanFeed(source, config, Prompts({5: 1, 7: 2}))


def gather(mine: PlanFeed, source: Source, iteration: int) -> list[int]:
    source.publish({}, iteration)
    return [s.trajectory.plan.group_id for s in mine.gather(iteration).scored]


def test_iterations_that_take_turns_have_their_own_groups() -> None:
    source = Source()
    mine = feed(source, 0)
    assert [gather(mine, source, i) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert mine.state == PlanState(6, ())


def test_what_is_too_old_is_dropped_counted_and_sampled_again() -> None:
    source = Source(slow=frozenset({0}))
    mine = feed(source, 1)
    used = [gather(mine, source, 0), gather(mine, source, 1)]
    source.publish({}, 2)
    harvest = mine.gather(2)
    assert harvest.dropped_stale == 1
    assert max(harvest.lags) <= 1
    used += [[s.trajectory.plan.group_id for s in harvest.scored]]
    used += [gather(mine, source, i) for i in range(3, 8)]
    flat = [group for groups in used for group in groups]
    assert len(set(flat)) == len(flat) == 16
    assert 0 in flat
    state = mine.state
    assert sorted([*flat, *state.open_groups]) == list(range(state.next_group))


def test_groups_under_way_are_asked_for_again_after_a_restart() -> None:
    source = Source()
    mine = feed(source, 1)
    used = gather(mine, source, 0)
    again = Source()
    resumed = feed(again, 1)
    resumed.restore(mine.state)
    used += [g for i in range(1, 4) for g in gather(resumed, again, i)]
    assert used == list(range(8))


def test_nothing_is_sampled_for_after_the_end() -> None:
    source = Source()
    mine = feed(source, 3, iterations=3)
    assert [gather(mine, source, i) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert (source.done, mine.state) == ([], PlanState(6, ()))


def test_iteration_goes_on_without_what_was_set_aside_but_not_without_any() -> None:
    source = Source(failing=frozenset({1, 2, 3}))
    mine = feed(source, 0)
    assert gather(mine, source, 0) == [0]
    with pytest.raises(RolloutError, match=r"no group could be completed; group 2 .*try 1: no"):
        gather(mine, source, 1)


def test_metrics_say_who_was_idle() -> None:
    source = Source()
    source.publish({}, 0)
    row = feed(source, 0).gather(0).metrics()
    assert (row["idle_share_actors"], row["reward_wait_s"]) == (0.8, 1.0)
    assert (row["policy_lag_mean"], row["policy_lag_max"], row["plans_dropped_stale"]) == (0.0, 0.0, 0.0)
