"""What a set of sampled molecules is worth: stability, chemistry and physics, each with a 95 % interval.

Pure: molecules and force fields (as callables) go in, numbers come out. A comparison of two policies pairs
molecules index by index, which is fair when both were sampled with the same node counts and seeds.

    before = evaluate_molecules(baseline_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    after = evaluate_molecules(trained_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    compare(before, after).differences["gfn2-xtb.rms_force"].excludes_zero
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from elign.common.chemistry import element_counts, first_occurrences, identify, is_novel
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.common.stability import stable_atoms
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
from elign.learner import posebusters_checks
from elign.learner.distributions import Reference
from elign.learner.diversity import internal_diversity, most_frequent

Scorer = Callable[[Molecules], ForceFieldResult]
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
        return _count(self.failures)


@dataclass(frozen=True)
class Judgement:
    """What another judge (DFT, relaxation) says of all or some of the molecules.

    measures: names after a dot that follows ``name``. failures: of those it was asked.
    """

    name: str
    measures: Mapping[str, Measure]
    failures: tuple[Failure | None, ...]


@dataclass(frozen=True)
class Evaluation:
    """B judged molecules.

    num_atoms, stable_atoms: [B]. smiles: B, None where invalid. verdicts: by force field. elements: atomic
    number -> atoms. measures and summary have the same keys: what was measured, and its estimate with its
    interval. failures: judge -> name of a failure -> molecules. repeated: the most frequent valid molecule.
    """

    dataset: str
    num_atoms: np.ndarray
    stable_atoms: np.ndarray
    smiles: tuple[str | None, ...]
    elements: Mapping[int, int]
    verdicts: Mapping[str, Verdict]
    measures: Mapping[str, Measure]
    summary: Mapping[str, Interval]
    failures: Mapping[str, Mapping[str, int]]
    repeated: str | None


@dataclass(frozen=True)
class Comparison:
    """Two evaluations; differences: measure -> trained - baseline with its interval.

    paired: molecules of both belong together by their places.
    """

    baseline: Evaluation
    trained: Evaluation
    differences: Mapping[str, Interval]
    paired: bool = True


def evaluate_molecules(
    molecules: Molecules,
    dataset: str,
    scorers: Mapping[str, Scorer],
    reference_smiles: frozenset[str] | None = None,
    *,
    data: Reference | None = None,
    judgements: Sequence[Judgement] = (),
    force_clip: float = FORCE_CLIP,
    seed: int = 0,
) -> Evaluation:
    """Judge molecules by EDM stability, RDKit and each force field.

    dataset: qm9 or geom, decides bond tables. scorers: name -> energies and forces. reference_smiles: of the
    training set; without it novelty is not measured. data: what bond lengths, angles, torsions and mixes are
    held against. judgements: of further judges. force_clip: eV/Å. seed: of the bootstrap.
    """
    atoms, stable = molecules.num_atoms.cpu().numpy(), stable_atoms(molecules, dataset).cpu().numpy()
    identities = identify(molecules, dataset)
    smiles = tuple(identity.smiles for identity in identities)
    pieces = np.array([identity.num_pieces for identity in identities], dtype=np.int64)
    verdicts = {name: Verdict.of(scorer(molecules), molecules) for name, scorer in scorers.items()}
    measures = _stability_measures(atoms, stable) | _chemistry_measures(smiles, pieces, reference_smiles)
    if posebusters_checks.is_installed():
        passed = posebusters_checks.passes_posebusters(molecules, dataset, smiles)
        measures["posebusters"] = fraction(passed)
    measures |= _diversity_measures(smiles)
    if data is not None:
        measures |= _distribution_measures(data, molecules)
    for name, verdict in verdicts.items():
        measures |= physics_measures(name, verdict, force_clip)
    for judgement in judgements:
        measures |= {f"{judgement.name}.{kind}": measure for kind, measure in judgement.measures.items()}
    return Evaluation(
        dataset,
        atoms,
        stable,
        smiles,
        element_counts(molecules),
        verdicts,
        measures,
        {name: measure.interval(seed) for name, measure in measures.items()},
        {name: v.failure_counts() for name, v in verdicts.items()}
        | {judgement.name: _count(judgement.failures) for judgement in judgements},
        most_frequent(smiles)[0],
    )


def compare(baseline: Evaluation, trained: Evaluation, *, paired: bool = True, seed: int = 0) -> Comparison:
    """Differences of the measures that both have.

    paired: molecules belong together by their places, which takes out what they have in common; each side
    keeps its own mask of molecules that could not be judged. Raises DataError when the data sets differ, or
    paired molecules have other node counts.
    """
    if baseline.dataset != trained.dataset or (
        paired and not np.array_equal(baseline.num_atoms, trained.num_atoms)
    ):
        raise DataError(
            f"cannot pair {len(baseline.num_atoms)} molecules of {baseline.dataset} with "
            f"{len(trained.num_atoms)} of {trained.dataset}: both need the same node counts in the same order"
        )
    differences = {
        name: measure.difference(trained.measures[name], paired=paired, seed=seed)
        for name, measure in baseline.measures.items()
        if name in trained.measures
    }
    return Comparison(baseline, trained, differences, paired)


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


def _stability_measures(atoms: np.ndarray, stable: np.ndarray) -> dict[str, Measure]:
    share = np.divide(stable, atoms, out=np.zeros(len(atoms)), where=atoms > 0)
    return {
        "atom_stability": fraction(share, atoms),
        "molecule_stability": fraction((stable == atoms) & (atoms > 0)),
    }


def _chemistry_measures(
    smiles: tuple[str | None, ...], pieces: np.ndarray, reference: frozenset[str] | None
) -> dict[str, Measure]:
    valid, first = np.array([name is not None for name in smiles], dtype=bool), first_occurrences(smiles)
    measures = {
        "validity": fraction(valid),
        "one_piece": fraction(pieces == 1),
        "uniqueness": fraction(first, valid),
        "validity_x_uniqueness": fraction(first),
    }
    if reference is not None:
        measures["novelty"] = fraction(is_novel(smiles, reference), first)
    return measures


def _diversity_measures(smiles: tuple[str | None, ...]) -> dict[str, Measure]:
    return {
        "internal_diversity": Measure(internal_diversity(smiles), "mean", "", "higher"),
        "most_frequent": Measure(most_frequent(smiles)[1], "mean", "fraction", "lower"),
    }


def _distribution_measures(data: Reference, molecules: Molecules) -> dict[str, Measure]:
    units: dict[str, Unit] = {"bond_lengths": "Å", "bond_angles": "°", "torsions": "°"}
    return {
        name: Measure(statistic, "mean", units.get(name, ""), "lower")
        for name, statistic in data.statistics(molecules).items()
    }


def _count(failures: Sequence[Failure | None]) -> dict[str, int]:
    """Name of each failure that occurred -> how many molecules, most frequent first."""
    return dict(Counter(str(failure) for failure in failures if failure is not None).most_common())
