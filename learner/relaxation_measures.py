"""What a relaxation says of a set of molecules, as a judgement beside the others of an evaluation."""

from __future__ import annotations

import numpy as np

from elign.common.scoring import Relaxation
from elign.common.statistics import Sample
from elign.learner.measures import Judgement, Measure, fraction


def relaxation_judgement(relaxation: Relaxation, force_field: str) -> Judgement:
    """Energy drop, distance moved, steps, whether bonds stayed; of the molecules that were not refused."""
    judged = np.array([failure is None for failure in relaxation.failures], dtype=bool)
    drop = Sample(relaxation.energy_drop.cpu().numpy(), judged)
    rmsd = Sample(relaxation.rmsd.cpu().numpy(), judged)
    steps = Sample(relaxation.steps.double().cpu().numpy(), judged)
    measures = {
        "judged": fraction(judged),
        "energy_drop": Measure(drop, "mean", "eV/atom", "lower"),
        "energy_drop_median": Measure(drop, "median", "eV/atom", "lower"),
        "rmsd": Measure(rmsd, "mean", "Å", "lower"),
        "steps": Measure(steps, "mean", "steps", "lower"),
        "bonds_kept": fraction(relaxation.bonds_kept.cpu().numpy(), judged.astype(float)),
        "converged": fraction(relaxation.converged.cpu().numpy(), judged.astype(float)),
    }
    return Judgement(f"relaxed by {force_field}", measures, relaxation.failures)
