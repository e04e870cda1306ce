"""Figures of merit over molecules, and what judges (force fields, DFT, relaxation) make of a set of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.common.statistics import (
    Interval,
    Sample,
    SetStatistic,
    Statistic,
    bootstrap,
    bootstrap_difference,
    bootstrap_set,
    bootstrap_set_difference,
)

Unit = Literal["fraction", "eV/Å", "eV/atom", "Å", "°", "steps", ""]
FORCE_CLIP = 30.0
"""RMS force above this counts as this in ``rms_force_capped``, eV/Å."""


@dataclass(frozen=True)
class Measure:
    """A figure of merit over molecules: its sample, how it is summed up, its unit, which way is better.

    A ``SetStatistic`` is summed up by itself.
    """

    sample: Sample | SetStatistic
    statistic: Statistic
    unit: Unit
    better: Literal["higher", "lower"]

    def interval(self, seed: int) -> Interval:
        """The estimate and its interval."""
        if isinstance(self.sample, SetStatistic):
            return bootstrap_set(self.sample, seed=seed)
        return bootstrap(self.sample.values, weights=self.sample.weights, statistic=self.statistic, seed=seed)

    def difference(self, changed: Measure, *, paired: bool, seed: int) -> Interval:
        """``changed`` minus this one; both are the same measure of two sets."""
        before, after = self.sample, changed.sample
        if isinstance(before, SetStatistic) and isinstance(after, SetStatistic):
            return bootstrap_set_difference(before, after, paired=paired, seed=seed)
        if isinstance(before, Sample) and isinstance(after, Sample):
            return bootstrap_difference(before, after, paired=paired, statistic=self.statistic, seed=seed)
        raise DataError("a figure of molecules cannot be compared with a figure of a set")


@dataclass(frozen=True)
class Verdict:
    """A force field's answers, NaN where it failed.

    rms_force, max_force: [B] eV/Å. formation_energy: [B] eV/atom. failures: B entries.
    """

    rms_force: np.ndarray
    max_force: np.ndarray
    formation_energy: np.ndarray
    failures: tuple[Failure | None, ...]

    @classmethod
    def of(cls, result: ForceFieldResult, molecules: Molecules) -> Verdict:
        """What the answers for ``molecules`` say."""
        length = torch.linalg.vector_norm(result.forces, dim=-1).double()
        rms = result.rms_force(molecules.node_mask.cpu()).double()
        largest = length.amax(1) if length.shape[1] else length.sum(1)
        energy = result.formation_energy.double()
        return cls(rms.cpu().numpy(), largest.cpu().numpy(), energy.cpu().numpy(), result.failures)

    def failure_counts(self) -> dict[str, int]:
        """Name of each failure that occurred -> how many molecules, most frequent first."""
        return _counted(self.failures)


@dataclass(frozen=True)
class Judgement:
    """What another judge (DFT, relaxation) says of all or some of the molecules.

    measures: names after a dot that follows ``name``. failures: of those it was asked.
    """

    name: str
    measures: Mapping[str, Measure]
    failures: tuple[Failure | None, ...]

    def failure_counts(self) -> dict[str, int]:
        """As that of ``Verdict``."""
        return _counted(self.failures)


def fraction(values: np.ndarray, weights: np.ndarray | None = None) -> Measure:
    """A share of molecules (or of what the weights count), higher being better."""
    return Measure(
        Sample(values, np.ones(len(values)) if weights is None else weights), "mean", "fraction", "higher"
    )


def physics_measures(name: str, verdict: Verdict, force_clip: float = FORCE_CLIP) -> dict[str, Measure]:
    """What a force field's answers come to, by ``name.measure``."""
    judged = np.array([failure is None for failure in verdict.failures], dtype=bool)
    rms, energy = Sample(verdict.rms_force, judged), Sample(verdict.formation_energy, judged)
    capped = Sample(np.minimum(verdict.rms_force, force_clip), judged)
    return {
        f"{name}.judged": fraction(judged),
        f"{name}.rms_force": Measure(rms, "mean", "eV/Å", "lower"),
        f"{name}.rms_force_capped": Measure(capped, "mean", "eV/Å", "lower"),
        f"{name}.rms_force_median": Measure(rms, "median", "eV/Å", "lower"),
        f"{name}.max_force": Measure(Sample(verdict.max_force, judged), "mean", "eV/Å", "lower"),
        f"{name}.formation_energy": Measure(energy, "mean", "eV/atom", "lower"),
    }


def _counted(failures: Sequence[Failure | None]) -> dict[str, int]:
    """Name of each failure that occurred -> how many molecules, most frequent first."""
    return dict(Counter(str(failure) for failure in failures if failure is not None).most_common())
