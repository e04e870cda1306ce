"""What groups are asked for: sizes as in the training data, or given formulas; values of a condition.

prompts = Prompts.of(config.rollout, policy.spec)
plans = make_plans(prompts, run_seed=0, first_group=0, num_groups=8, num_samples=16)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from elign.common.config import RolloutSettings
from elign.common.datasets import get_dataset
from elign.common.errors import ConfigError
from elign.common.policy import PolicySpec
from elign.common.rollout import RolloutPlan


@dataclass(frozen=True)
class Prompts:
    """size_histogram: number of atoms -> count. formulas: elements of each, sorted; conditions: values.

    Empty formulas: sizes from the histogram. Empty conditions: the policy has none.
    """

    size_histogram: Mapping[int, int]
    formulas: tuple[tuple[int, ...], ...] = ()
    conditions: tuple[float, ...] = ()

    @classmethod
    def of(cls, rollout: RolloutSettings, spec: PolicySpec) -> Prompts:
        """Raises ConfigError where the settings do not fit the policy."""
        wanted = spec.conditioning
        if len(wanted) > 1:
            raise ConfigError(
                f"policy.checkpoint: it is conditioned on {len(wanted)} properties; one can be trained"
            )
        if wanted and not rollout.conditions:
            raise ConfigError(
                f"rollout.conditions: the policy is conditioned on {wanted[0]}; give values to train at, "
                "normalized as in its training"
            )
        if rollout.conditions and not wanted:
            raise ConfigError("rollout.conditions: the policy is conditioned on nothing")
        formulas = tuple(tuple(parse_formula(text, spec.dataset)) for text in rollout.formulas)
        return cls(spec.size_histogram, formulas, rollout.conditions)

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...] | None, float | None]:
        """(number of atoms, elements, value of the condition) of one group."""
        elements = self.formulas[int(rng.integers(len(self.formulas)))] if self.formulas else None
        num_atoms = self._draw_size(rng) if elements is None else len(elements)
        return num_atoms, elements, float(rng.choice(self.conditions)) if self.conditions else None

    def _draw_size(self, rng: np.random.Generator) -> int:
        sizes = np.array(sorted(self.size_histogram))
        weights = np.array([self.size_histogram[int(n)] for n in sizes], dtype=np.float64)
        return int(rng.choice(sizes, p=weights / weights.sum()))


def make_plans(
    prompts: Prompts, *, run_seed: int, first_group: int, num_groups: int, num_samples: int
) -> list[RolloutPlan]:
    """Plans of one iteration; prompts and seeds depend on (run_seed, group id) alone."""
    plans = []
    for group_id in range(first_group, first_group + num_groups):
        rng = np.random.default_rng((run_seed, group_id))
        num_atoms, elements, context = prompts.draw(rng)
        seed = int(rng.integers(2**62))
        plans.append(RolloutPlan(group_id, num_atoms, num_samples, seed, elements, context))
    return plans


def parse_formula(formula: str, dataset: str) -> list[int]:
    """Atomic numbers of a formula such as C7H10O2, one an atom, heavy ones first.

    Raises ConfigError for what is no formula, has fewer than two atoms, or elements that the data set lacks.
    """
    try:
        counts = Formula(formula).count()
        numbers = [atomic_numbers[symbol] for symbol, count in counts.items() for _ in range(count)]
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{formula!r} is no chemical formula, such as C7H10O2") from error
    known = get_dataset(dataset).atomic_numbers
    lacking = _symbols(set(numbers) - set(known))
    if lacking:
        raise ConfigError(f"formula {formula}: the policy has no {lacking}, only {_symbols(known)}")
    if len(numbers) < 2:
        raise ConfigError(f"formula {formula!r}: a molecule has at least two atoms")
    return sorted(numbers, reverse=True)


def _symbols(numbers: Sequence[int] | set[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))
