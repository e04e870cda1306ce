"""The part of a report that shows molecules: the same sizes and seeds, before and after training.

Pairs are chosen by their place in the files, not by their looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from ase import Atoms

from elign.common.datasets import dataset_of
from elign.common.molecule_io import read_molecules_with_properties
from elign.common.molecules import Molecules
from elign.common.stability import is_stable, stable_atoms
from elign.learner.molecule_drawing import draw_molecule, gradients

NUM_PAIRS = 9


@dataclass(frozen=True)
class Sampled:
    """Molecules of a file; rms_force [B] eV/Å and failure [B] names are None where not recorded."""

    molecules: Molecules
    stable: np.ndarray
    stable_atoms: np.ndarray
    rms_force: np.ndarray | None
    failure: np.ndarray | None


def read_sampled(path: Path) -> Sampled:
    """Molecules of ``before.parquet`` or ``after.parquet``; raises DataError when damaged."""
    molecules, properties = read_molecules_with_properties(path)
    dataset = dataset_of(molecules)
    return Sampled(
        molecules,
        is_stable(molecules, dataset).numpy(),
        stable_atoms(molecules, dataset).numpy(),
        properties.get("rms_force"),
        properties.get("failure"),
    )


def molecules_section(before: Sampled, after: Sampled) -> str:
    """Figures over all molecules of both files, and pictures of some pairs."""
    count = min(len(before.molecules), len(after.molecules))
    places = np.unique(np.linspace(0, count - 1, min(NUM_PAIRS, count)).round().astype(int))
    pairs = "".join(_pair(before, after, int(i)) for i in places)
    return (
        "<section><h2>Before and after</h2>"
        '<p class="lead">The same numbers of atoms and the same random numbers, sampled by the starting '
        f"policy and by the best one. {len(places)} of {count} pairs, evenly spaced through the files, not "
        "chosen by looks.</p>"
        f'{_figures(before, after)}<div class="pairs">{pairs}</div>{gradients()}</section>'
    )


def _figures(before: Sampled, after: Sampled) -> str:
    rows = [
        ("molecules", *(str(len(s.molecules)) for s in (before, after))),
        (
            "stable atoms",
            *(_percent(s.stable_atoms.sum() / s.molecules.num_atoms.sum()) for s in (before, after)),
        ),
        ("stable molecules", *(_percent(s.stable.mean()) for s in (before, after))),
    ]
    if before.rms_force is not None and after.rms_force is not None:
        rows.append(("median RMS force, eV/Å", _median(before.rms_force), _median(after.rms_force)))
        judged = [
            f"{int(np.isfinite(s.rms_force).sum())}" for s in (before, after) if s.rms_force is not None
        ]
        rows.append(("judged by the force field", *judged))
    body = "".join(
        f'<tr><td>{name}</td><td class="number">{old}</td><td class="number">{new}</td></tr>'
        for name, old, new in rows
    )
    head = '<tr><th></th><th class="number">before</th><th class="number">after</th></tr>'
    return f'<div class="scroll figures"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _pair(before: Sampled, after: Sampled, index: int) -> str:
    size = int(before.molecules.num_atoms[index])
    sides = _side("before", before, index) + _side("after", after, index)
    return (
        f'<div class="pair"><div class="head"><span>pair {index + 1}</span><span>{size} atoms</span></div>'
        f'<div class="sides">{sides}</div></div>'
    )


def _side(which: str, sampled: Sampled, index: int) -> str:
    formula = _formula(sampled.molecules, index)
    stable, size = bool(sampled.stable[index]), int(sampled.molecules.num_atoms[index])
    badge = (
        '<span class="badge good">stable</span>' if stable else '<span class="badge bad">not stable</span>'
    )
    facts = [formula, f"{int(sampled.stable_atoms[index])} of {size} atoms stable"]
    if sampled.rms_force is not None and np.isfinite(sampled.rms_force[index]):
        facts.append(f"RMS force {sampled.rms_force[index]:.3g} eV/Å")
    elif sampled.failure is not None and sampled.failure[index]:
        facts.append(escape(str(sampled.failure[index]).replace("_", " ")))
    picture = draw_molecule(sampled.molecules, index, f"{which}: {formula}")
    lines = "".join(f'<div class="fact">{fact}</div>' for fact in facts)
    return f'<div class="side"><div class="which">{which}</div>{picture}{badge}{lines}</div>'


def _formula(molecules: Molecules, index: int) -> str:
    numbers = molecules.atomic_numbers[index][molecules.node_mask[index]].tolist()
    return str(Atoms(numbers=numbers).get_chemical_formula())


def _percent(value: float) -> str:
    return f"{100 * float(value):.1f} %"


def _median(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{np.median(finite):.3g}" if len(finite) else "–"
