"""Evaluations for people (a table) and for scripts (JSON of a stable layout).

``{"schema": "elign.evaluation/1", "dataset", "molecules", "measures": {name: {"estimate", "low", "high",
"count", "unit", "better"}}, "failures": {judge: {failure: count}}, "elements": {symbol: atoms}, "repeated":
SMILES}``; a comparison is ``{"schema": "elign.comparison/1", "paired", "baseline": evaluation, "trained":
evaluation, "difference": {name: {"estimate", "low", "high", "count", "excludes_zero", "better"}}}``.
Intervals are 95 %; null stands for what could not be measured.
"""

from __future__ import annotations

import math
from typing import Any

from ase.data import chemical_symbols
from rich.table import Table

from elign.common.statistics import Interval
from elign.learner.evaluate import Comparison, Evaluation
from elign.learner.measures import Measure

EVALUATION_SCHEMA = "elign.evaluation/1"
COMPARISON_SCHEMA = "elign.comparison/1"
_LABELS = {
    "atom_stability": "atom stability",
    "molecule_stability": "molecule stability",
    "validity": "validity (RDKit)",
    "one_piece": "in one piece",
    "uniqueness": "uniqueness of valid",
    "validity_x_uniqueness": "validity × uniqueness",
    "novelty": "novelty of unique",
    "posebusters": "passes PoseBusters",
    "internal_diversity": "internal diversity",
    "most_frequent": "share of the most frequent",
    "bond_lengths": "bond lengths, distance from data",
    "bond_angles": "bond angles, distance from data",
    "torsions": "torsions, distance from data",
    "elements": "element mix, divergence from data",
    "sizes": "sizes, divergence from data",
    "judged": "could be judged",
    "rms_force": "RMS force, mean",
    "rms_force_capped": "RMS force, mean, capped",
    "rms_force_median": "RMS force, median",
    "max_force": "largest force, mean",
    "formation_energy": "formation energy, mean",
    "composition_energy": "energy above composition, mean",
    "energy_drop": "energy drop, mean",
    "energy_drop_median": "energy drop, median",
    "rmsd": "RMSD moved, mean",
    "steps": "steps, mean",
    "bonds_kept": "same bonds afterwards",
    "converged": "converged",
}


def evaluation_table(evaluation: Evaluation, title: str = "", data: Evaluation | None = None) -> Table:
    """One line a measure: estimate and 95 % interval; then the failures by name.

    data: the same figures of real molecules, as the ceiling.
    """
    table = Table(title=title or None, caption=_caption(evaluation))
    for heading in ("measure", "estimate", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    if data is not None:
        table.add_column("data", justify="right")
    for name, measure in evaluation.measures.items():
        interval = evaluation.summary[name]
        estimate = number_text(interval.estimate, measure)
        row = [label(name, measure), estimate, range_text(interval, measure)]
        table.add_row(*row, *_ceiling(name, measure, data))
    for judge, failures in evaluation.failures.items():
        for failure, count in failures.items():
            table.add_row(f"{judge}: {failure.replace('_', ' ')}", str(count), "")
    return table


def comparison_table(comparison: Comparison, title: str = "", data: Evaluation | None = None) -> Table:
    """Baseline, trained, paired difference; a star marks a difference whose interval excludes zero.

    data: as in ``evaluation_table``.
    """
    table = Table(title=title or None, caption=_caption(comparison.trained) + "; * interval excludes zero")
    for heading in ("measure", "baseline", "trained", "difference", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    if data is not None:
        table.add_column("data", justify="right")
    for name, difference in comparison.differences.items():
        measure = comparison.baseline.measures[name]
        before, after = comparison.baseline.summary[name], comparison.trained.summary[name]
        signed = number_text(difference.estimate, measure, signed=True)
        star = " *" if difference.excludes_zero else ""
        table.add_row(
            label(name, measure),
            number_text(before.estimate, measure),
            number_text(after.estimate, measure),
            _coloured(signed, difference, measure),
            range_text(difference, measure, signed=True) + star,
            *_ceiling(name, measure, data),
        )
    _add_failures(table, comparison)
    return table


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The documented layout; every value is a plain JSON value."""
    measures = {
        name: interval_json(evaluation.summary[name]) | {"unit": measure.unit, "better": measure.better}
        for name, measure in evaluation.measures.items()
    }
    return {
        "schema": EVALUATION_SCHEMA,
        "dataset": evaluation.dataset,
        "molecules": len(evaluation.num_atoms),
        "measures": measures,
        "failures": {name: dict(counts) for name, counts in evaluation.failures.items()},
        "elements": {chemical_symbols[z]: count for z, count in evaluation.elements.items()},
        "repeated": evaluation.repeated,
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The documented layout of a comparison."""
    differences = {
        name: interval_json(interval)
        | {"excludes_zero": interval.excludes_zero, "better": comparison.baseline.measures[name].better}
        for name, interval in comparison.differences.items()
    }
    return {
        "schema": COMPARISON_SCHEMA,
        "paired": comparison.paired,
        "baseline": evaluation_json(comparison.baseline),
        "trained": evaluation_json(comparison.trained),
        "difference": differences,
    }


def _add_failures(table: Table, comparison: Comparison) -> None:
    for scorer in comparison.baseline.failures:
        before, after = comparison.baseline.failures[scorer], comparison.trained.failures.get(scorer, {})
        for failure in sorted(before.keys() | after.keys()):
            old, new = before.get(failure, 0), after.get(failure, 0)
            table.add_row(f"{scorer}: {failure.replace('_', ' ')}", str(old), str(new), f"{new - old:+d}", "")


def _ceiling(name: str, measure: Measure, data: Evaluation | None) -> list[str]:
    if data is None:
        return []
    return [number_text(data.summary[name].estimate, measure) if name in data.summary else "–"]


def _caption(evaluation: Evaluation) -> str:
    return f"{len(evaluation.num_atoms)} molecules, {evaluation.dataset}; forces in eV/Å, energies in eV/atom"


def label(name: str, measure: Measure) -> str:
    """A measure's name for people, with an arrow that says which way is better."""
    scorer, _, kind = name.rpartition(".")
    arrow = "↑" if measure.better == "higher" else "↓"
    return f"{scorer}: {_LABELS[kind]} {arrow}" if scorer else f"{_LABELS[kind]} {arrow}"


def number_text(value: float, measure: Measure, *, signed: bool = False) -> str:
    """A value as a measure is written: percent, or three decimals without the unit."""
    if math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} %" if measure.unit == "fraction" else f"{value:{sign}.3f}"


def range_text(interval: Interval, measure: Measure, *, signed: bool = False) -> str:
    """``low to high``."""
    if math.isnan(interval.low):
        return "–"
    low, high = (number_text(value, measure, signed=signed) for value in (interval.low, interval.high))
    return f"{low} to {high}"


def _coloured(text: str, difference: Interval, measure: Measure) -> str:
    if not difference.excludes_zero:
        return text
    better = (difference.estimate > 0) == (measure.better == "higher")
    return f"[green]{text}[/green]" if better else f"[red]{text}[/red]"


def interval_json(interval: Interval) -> dict[str, float | int | None]:
    """estimate, low, high (null where unknown) and count."""

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "estimate": plain(interval.estimate),
        "low": plain(interval.low),
        "high": plain(interval.high),
        "count": interval.count,
    }
