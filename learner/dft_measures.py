"""What DFT says of the first molecules of a set, as a judgement beside the others of an evaluation."""

from __future__ import annotations

import numpy as np

from elign.common.composition import CompositionBaseline, fit_composition
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult
from elign.common.statistics import Sample
from elign.learner.measures import Judgement, Measure, Verdict, physics_measures

NAME = "dft"


def dft_judgement(
    result: ForceFieldResult, molecules: Molecules, baseline: CompositionBaseline | None
) -> Judgement:
    """Forces, formation energies from free atoms, and energies above a typical molecule of the composition.

    result: of these molecules. baseline: see ``dft_composition``; without it the last are not there.
    """
    verdict = Verdict.of(result, molecules)
    measures = {key.removeprefix(f"{NAME}."): m for key, m in physics_measures(NAME, verdict).items()}
    if baseline is not None:
        judged = np.array([failure is None for failure in result.failures], dtype=bool)
        above = baseline.per_atom(molecules, _total(result, molecules))
        measures["composition_energy"] = Measure(
            Sample(above, judged & np.isfinite(above)), "mean", "eV/atom", "lower"
        )
    return Judgement(NAME, measures, result.failures)


def dft_composition(result: ForceFieldResult, data: Molecules) -> CompositionBaseline | None:
    """The composition baseline of data molecules; None where DFT answered for none of them."""
    try:
        return fit_composition(data, _total(result, data))
    except DataError:
        return None


def _total(result: ForceFieldResult, molecules: Molecules) -> np.ndarray:
    """[B] eV from free atoms."""
    energy: np.ndarray = (result.formation_energy * molecules.num_atoms.cpu()).numpy()
    return energy
