"""Plans and their prompts: functions of run seed and group, and settings that do not fit are refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from elign.common.config import RolloutSettings
from elign.common.errors import ConfigError
from elign.common.policy import PolicySpec
from elign.common.prompts import Prompts, make_plans, parse_formula
from elign.common.rollout import RolloutPlan

HISTOGRAM = {3: 10, 5: 1, 9: 4}


def plans(prompts: Prompts, seed: int = 1, first: int = 0, groups: int = 6) -> Sequence[RolloutPlan]:
    return make_plans(prompts, run_seed=seed, first_group=first, num_groups=groups, num_samples=2)


def test_plans_depend_on_run_seed_and_group_alone() -> None:
    prompts = Prompts(HISTOGRAM)
    together, later = plans(prompts), plans(prompts, first=4, groups=2)
    assert together[4:] == later
    assert len({plan.seed for plan in together}) == 6
    assert {plan.num_atoms for plan in together} <= set(HISTOGRAM)
    assert all(plan.elements is None and plan.context is None for plan in together)
    assert plans(prompts, seed=2, first=4, groups=2) != later


def test_groups_take_formulas_and_values_of_the_condition_in_turn() -> None:
    rollout = RolloutSettings(formulas=("CH4", "C2H6O"), conditions=(-1.0, 0.5))
    made = plans(Prompts.of(rollout, PolicySpec(conditioning=("alpha",))), groups=40)
    assert {plan.elements for plan in made} == {(6, 1, 1, 1, 1), (8, 6, 6, 1, 1, 1, 1, 1, 1)}
    assert all(plan.elements is not None and plan.num_atoms == len(plan.elements) for plan in made)
    assert {plan.context for plan in made} == {-1.0, 0.5}


@pytest.mark.parametrize(
    ("settings", "conditioning", "message"),
    [
        ({}, ("alpha",), "rollout.conditions: the policy is conditioned on alpha"),
        ({}, ("alpha", "gap"), "conditioned on 2 properties"),
        ({"conditions": (1.0,)}, (), "conditioned on nothing"),
        ({"formulas": ("CH4", "SiH4")}, (), "the policy has no Si, only H, C, N, O, F"),
        ({"formulas": ("water",)}, (), "'water' is no chemical formula"),
        ({"formulas": ("H",)}, (), "at least two atoms"),
    ],
)
def test_what_does_not_fit_the_policy_is_refused(
    settings: dict[str, tuple[str, ...]], conditioning: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompts.of(RolloutSettings.model_validate(settings), PolicySpec(conditioning=conditioning))


def test_a_formula_lists_heavy_atoms_first() -> None:
    assert parse_formula("CH3OH", "qm9") == [8, 6, 1, 1, 1, 1]
