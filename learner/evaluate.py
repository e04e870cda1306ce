"""What a set of sampled molecules is worth: stability, chemistry and physics, each with a 95 % interval.

Pure: molecules and force fields (as callables) go in, numbers come out. A comparison of two policies pairs
molecules index by index, which is fair when both were sampled with the same node counts and seeds.

    before = evaluate_molecules(baseline_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    after = evaluate_molecules(trained_molecules, "qm9", {"gfn2-xtb": gfn2.evaluate})
    compare(before, after).differences["gfn2-xtb.rms_force"].excludes_zero
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from elign.common.chemistry import element_counts, first_occurrences, identify, is_novel
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult
from elign.common.stability import stable_atoms
from elign.common.statistics import Interval
from elign.learner import posebusters_checks
from elign.learner.distributions import Reference
from elign.learner.diversity import internal_diversity, most_frequent
from elign.learner.measures import (
    FORCE_CLIP,
    Judgement,
    Measure,
    Unit,
    Verdict,
    fraction,
    physics_measures,
)

Scorer = Callable[[Molecules], ForceFieldResult]


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
        | {judgement.name: judgement.failure_counts() for judgement in judgements},
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
