"""What a set of sampled molecules is worth: stability, chemistry and physics, each with a 95 % interval.

Pure: molecules and force fields (as callables) go in, numbers come out. A comparison of two policies pairs
molecules index by index, which is fair when both were sampled with the same node counts and seeds.

    before = evaluate_molecules(baseline_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    after = evaluate_molecules(trained_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    compare(before, after).differences["gfn2-xtb.rms_force"].excludes_zero
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from elign.common.chemistry import element_counts, first_occurrences, identify, is_novel
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.common.stability import stable_atoms
from elign.common.statistics import Interval, Sample, Statistic, bootstrap, bootstrap_difference

Scorer = Callable[[Molecules], ForceFieldResult]
FORCE_CLIP = 30.0
"""RMS force above this counts as this in ``rms_force_capped``, eV/Å."""


@dataclass(frozen=True)
class Measure:
    """A figure of merit over B molecules: its sample, how it is summed up, its unit, which way is better."""

    sample: Sample
    statistic: Statistic
    unit: Literal["fraction", "eV/Å", "eV/atom"]
    better: Literal["higher", "lower"]


@dataclass(frozen=True)
class Verdict:
    """A force field's answers: rms_force [B] eV/Å and formation_energy [B] eV/atom, NaN where it failed."""

    rms_force: np.ndarray
    formation_energy: np.ndarray
    failures: tuple[Failure | None, ...]

    def failure_counts(self) -> dict[str, int]:
        """Name of each failure that occurred -> how many molecules, most frequent first."""
        found = Counter(str(failure) for failure in self.failures if failure is not None)
        return dict(found.most_common())


@dataclass(frozen=True)
class Evaluation:
    """B judged molecules.

    num_atoms, stable_atoms: [B]. smiles: B, None where invalid. verdicts: by force field. elements: atomic
    number -> atoms. measures and summary have the same keys: what was measured, and its estimate with its
    interval.
    """

    dataset: str
    num_atoms: np.ndarray
    stable_atoms: np.ndarray
    smiles: tuple[str | None, ...]
    elements: Mapping[int, int]
    verdicts: Mapping[str, Verdict]
    measures: Mapping[str, Measure]
    summary: Mapping[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """Two evaluations, paired by index; differences: measure -> trained - baseline with its interval."""

    baseline: Evaluation
    trained: Evaluation
    differences: Mapping[str, Interval]


def evaluate_molecules(
    molecules: Molecules,
    dataset: str,
    scorers: Mapping[str, Scorer],
    reference_smiles: frozenset[str] | None = None,
    *,
    force_clip: float = FORCE_CLIP,
    seed: int = 0,
) -> Evaluation:
    """Judge molecules by EDM stability, RDKit and each force field.

    dataset: qm9 or geom, decides bond tables. scorers: name -> energies and forces. reference_smiles: of the
    training set; without it novelty is not measured. force_clip: eV/Å. seed: of the bootstrap.
    """
    atoms, stable = molecules.num_atoms.cpu().numpy(), stable_atoms(molecules, dataset).cpu().numpy()
    identities = identify(molecules, dataset)
    smiles = tuple(identity.smiles for identity in identities)
    pieces = np.array([identity.num_pieces for identity in identities], dtype=np.int64)
    verdicts = {name: _verdict(scorer, molecules) for name, scorer in scorers.items()}
    measures = _stability_measures(atoms, stable) | _chemistry_measures(smiles, pieces, reference_smiles)
    for name, verdict in verdicts.items():
        measures |= _physics_measures(name, verdict, force_clip)
    summary = {
        name: bootstrap(m.sample.values, weights=m.sample.weights, statistic=m.statistic, seed=seed)
        for name, m in measures.items()
    }
    return Evaluation(dataset, atoms, stable, smiles, element_counts(molecules), verdicts, measures, summary)


def compare(baseline: Evaluation, trained: Evaluation, *, seed: int = 0) -> Comparison:
    """Differences of the measures that both have, molecules paired by index.

    Each side keeps its own mask of molecules that could not be judged. Raises DataError unless both have the
    same data set and the same node counts in the same order.
    """
    if baseline.dataset != trained.dataset or not np.array_equal(baseline.num_atoms, trained.num_atoms):
        raise DataError(
            f"cannot pair {len(baseline.num_atoms)} molecules of {baseline.dataset} with "
            f"{len(trained.num_atoms)} of {trained.dataset}: both need the same node counts in the same order"
        )
    differences = {
        name: bootstrap_difference(
            measure.sample,
            trained.measures[name].sample,
            paired=True,
            statistic=measure.statistic,
            seed=seed,
        )
        for name, measure in baseline.measures.items()
        if name in trained.measures
    }
    return Comparison(baseline, trained, differences)


def _verdict(scorer: Scorer, molecules: Molecules) -> Verdict:
    result = scorer(molecules)
    rms = result.rms_force(molecules.node_mask).double().cpu().numpy()
    return Verdict(rms, result.formation_energy.double().cpu().numpy(), result.failures)


def _stability_measures(atoms: np.ndarray, stable: np.ndarray) -> dict[str, Measure]:
    fraction = np.divide(stable, atoms, out=np.zeros(len(atoms)), where=atoms > 0)
    return {
        "atom_stability": _fraction(fraction, atoms),
        "molecule_stability": _fraction((stable == atoms) & (atoms > 0)),
    }


def _chemistry_measures(
    smiles: tuple[str | None, ...], pieces: np.ndarray, reference: frozenset[str] | None
) -> dict[str, Measure]:
    valid, first = np.array([name is not None for name in smiles], dtype=bool), first_occurrences(smiles)
    measures = {
        "validity": _fraction(valid),
        "one_piece": _fraction(pieces == 1),
        "uniqueness": _fraction(first, valid),
        "validity_x_uniqueness": _fraction(first),
    }
    if reference is not None:
        measures["novelty"] = _fraction(is_novel(smiles, reference), first)
    return measures


def _physics_measures(name: str, verdict: Verdict, force_clip: float) -> dict[str, Measure]:
    judged = np.array([failure is None for failure in verdict.failures], dtype=bool)
    rms, energy = Sample(verdict.rms_force, judged), Sample(verdict.formation_energy, judged)
    capped = Sample(np.minimum(verdict.rms_force, force_clip), judged)
    return {
        f"{name}.judged": _fraction(judged),
        f"{name}.rms_force": Measure(rms, "mean", "eV/Å", "lower"),
        f"{name}.rms_force_capped": Measure(capped, "mean", "eV/Å", "lower"),
        f"{name}.rms_force_median": Measure(rms, "median", "eV/Å", "lower"),
        f"{name}.formation_energy": Measure(energy, "mean", "eV/atom", "lower"),
    }


def _fraction(values: np.ndarray, weights: np.ndarray | None = None) -> Measure:
    return Measure(
        Sample(values, np.ones(len(values)) if weights is None else weights), "mean", "fraction", "higher"
    )
