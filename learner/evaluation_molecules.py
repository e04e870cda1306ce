"""The part of an evaluation's report that shows molecules: typical ones and the worst, chosen by rule."""

from __future__ import annotations

from html import escape

import numpy as np
from ase import Atoms

from elign.common.molecules import Molecules
from elign.common.statistics import Sample
from elign.learner.evaluate import Evaluation
from elign.learner.evaluation_outcome import Outcome
from elign.learner.molecule_drawing import draw_molecule, gradients

NUM_SHOWN = 4
_ORDER = ("dft.rms_force", "gfn2-xtb.rms_force")


def molecule_sections(outcome: Outcome) -> str:
    """For each set, molecules around the median of the RMS force, and those with the largest."""
    parts = []
    for name, evaluation in outcome.evaluations.items():
        measure = ordering_measure(evaluation)
        if measure is None:
            continue
        typical, worst = typical_and_worst(evaluation, measure)
        rows = [("typical", typical), ("worst", worst)]
        figures = "".join(
            _figure(outcome.sets[name], int(i), evaluation, measure, kind) for kind, row in rows for i in row
        )
        parts.append(f'<h3>{escape(name)}</h3><div class="pairs">{figures}</div>')
    if not parts:
        return ""
    return (
        "<section><h2>Typical and worst molecules</h2>"
        '<p class="lead">Those whose RMS force is nearest to the median, and those with the largest, of the '
        f"molecules that could be judged.</p>{''.join(parts)}{gradients()}</section>"
    )


def ordering_measure(evaluation: Evaluation) -> str | None:
    """The name of the RMS force that molecules are ordered by: the most trustworthy judge's."""
    others = [name for name in evaluation.measures if name.endswith(".rms_force")]
    return next((name for name in (*_ORDER, *others) if name in others), None)


def typical_and_worst(evaluation: Evaluation, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of at most ``NUM_SHOWN`` molecules each, no molecule in both."""
    sample = evaluation.measures[measure].sample
    assert isinstance(sample, Sample)
    judged = np.flatnonzero(sample.weights > 0)
    order = judged[np.argsort(sample.values[judged], kind="stable")]
    shown = min(NUM_SHOWN, len(order) // 2)
    middle = max((len(order) - shown) // 2, 0)
    typical = order[middle : middle + shown]
    return typical, order[::-1][:shown][~np.isin(order[::-1][:shown], typical)]


def _figure(molecules: Molecules, index: int, evaluation: Evaluation, measure: str, kind: str) -> str:
    mask = molecules.node_mask[index]
    formula = str(Atoms(numbers=molecules.atomic_numbers[index][mask].tolist()).get_chemical_formula())
    sample = evaluation.measures[measure].sample
    assert isinstance(sample, Sample)
    stable = f"{int(evaluation.stable_atoms[index])} of {int(evaluation.num_atoms[index])} atoms stable"
    facts = [formula, stable, f"RMS force {sample.values[index]:.3g} eV/Å"]
    lines = "".join(f'<div class="fact">{escape(fact)}</div>' for fact in facts)
    picture = draw_molecule(molecules, index, f"{kind}: {formula}")
    head = f'<div class="head"><span>{kind}</span><span>no. {index + 1}</span></div>'
    return f'<div class="pair">{head}<div class="side">{picture}{lines}</div></div>'
