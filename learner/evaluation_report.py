"""The report of an evaluation for a reviewer: one HTML file, tables, distributions, molecules, provenance.

write_evaluation_report(folder / "report.html", outcome, {"command": ..., "versions": ...})
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from elign.common.statistics import Interval, Sample
from elign.common.storage import write_text
from elign.learner.distribution_chart import draw_densities, draw_values
from elign.learner.distributions import FAMILIES
from elign.learner.evaluate import Comparison
from elign.learner.evaluation_molecules import molecule_sections
from elign.learner.evaluation_outcome import Outcome
from elign.learner.evaluation_table import label, number_text, range_text
from elign.learner.html_page import html_page
from elign.learner.measures import Measure
from elign.learner.speed import speed_text

_SHOWN_KINDS = 4
_DRAWN = ("rms_force", "formation_energy", "composition_energy", "energy_drop", "rmsd")


def write_evaluation_report(path: Path, outcome: Outcome, facts: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all. facts: command, versions, seed, ... (may be nested)."""
    parts = [_header(outcome), _alarms(outcome), _table(outcome), _values(outcome), _geometry(outcome)]
    parts += [molecule_sections(outcome), _facts(facts)]
    write_text(path, html_page("evaluation", "".join(parts)))


def _header(outcome: Outcome) -> str:
    counts = ", ".join(f"{len(molecules)} of {name}" for name, molecules in outcome.sets.items())
    return f'<h1>Evaluation</h1><p class="lead">{escape(outcome.dataset)} · molecules: {escape(counts)}</p>'


def _alarms(outcome: Outcome) -> str:
    if not outcome.alarms:
        return '<p class="lead">No warning: no repeats, no loss of variety beyond the limits.</p>'
    items = "".join(
        f"<li><b>{escape(name.replace('_', ' '))}</b>: {escape(text)}</li>"
        for name, text in outcome.alarms.items()
    )
    return f'<section class="alarms"><h2>Warnings</h2><ul>{items}</ul></section>'


def _table(outcome: Outcome) -> str:
    comparison = outcome.result if isinstance(outcome.result, Comparison) else None
    evaluations = outcome.evaluations
    headings = [*evaluations, *(["difference"] if comparison else [])]
    head = "".join(f'<th class="number">{escape(heading)}</th>' for heading in ["", *headings])
    rows = []
    for name, measure in evaluations["trained"].measures.items():
        unit = f" <span class='unit'>{measure.unit}</span>" if measure.unit not in ("fraction", "") else ""
        cells = [f"<td>{escape(label(name, measure))}{unit}</td>"]
        cells += [_cell(e.summary.get(name), measure) for e in evaluations.values()]
        if comparison is not None:
            cells.append(_difference(comparison.differences.get(name), measure))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    rows += _failure_rows(outcome, bool(comparison))
    how = "" if comparison is None else (" Differences are paired." if comparison.paired else " Unpaired.")
    speed = "" if outcome.speed is None else f'<p class="lead">{escape(speed_text(outcome.speed))}</p>'
    return (
        "<section><h2>Figures</h2><p class='lead'>Below each estimate its 95 % bootstrap interval over "
        f"molecules.{how} Coloured where the interval excludes zero.</p>{speed}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div></section>"
    )


def _cell(interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return '<td class="number">–</td>'
    text = f"{number_text(interval.estimate, measure)}<br><small>{range_text(interval, measure)}</small>"
    return f'<td class="number" title="{interval.count} molecules">{text}</td>'


def _difference(interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return '<td class="number">–</td>'
    better = (interval.estimate > 0) == (measure.better == "higher")
    colour = ("up" if better else "down") if interval.excludes_zero else ""
    spread = range_text(interval, measure, signed=True)
    text = f"{number_text(interval.estimate, measure, signed=True)}<br><small>{spread}</small>"
    return f'<td class="number {colour}">{text}</td>'


def _failure_rows(outcome: Outcome, compared: bool) -> list[str]:
    evaluations = outcome.evaluations
    found = {
        (judge, failure): None
        for evaluation in evaluations.values()
        for judge, failures in evaluation.failures.items()
        for failure in failures
    }
    rows = []
    for judge, failure in found:
        counts = [e.failures.get(judge, {}).get(failure, 0) for e in evaluations.values()]
        cells = "".join(f'<td class="number">{count}</td>' for count in counts)
        name = escape(f"{judge}: {failure.replace('_', ' ')}")
        rows.append(f"<tr><td>{name}, molecules</td>{cells}{'<td></td>' if compared else ''}</tr>")
    return rows


def _values(outcome: Outcome) -> str:
    """Distributions of what each molecule has a value of."""
    charts = []
    for name, measure in outcome.evaluations["trained"].measures.items():
        if name.rpartition(".")[2] not in _DRAWN:
            continue
        values = {}
        for which, evaluation in outcome.evaluations.items():
            sample = evaluation.measures[name].sample if name in evaluation.measures else None
            if isinstance(sample, Sample):
                values[which] = sample.values[sample.weights > 0]
        charts.append(draw_values(label(name, measure), measure.unit, values))
    shown = "".join(charts)
    return f'<section><h2>Distributions</h2><div class="charts">{shown}</div></section>' if shown else ""


def _geometry(outcome: Outcome) -> str:
    """The most frequent bonds, angles and torsions of the data, and how the sets have them."""
    if outcome.reference is None:
        return ""
    charts = []
    for family_name, family in FAMILIES.items():
        known = outcome.reference.histograms[family_name]
        edges = np.linspace(family.low, family.high, family.bins + 1)
        sets = {n: m for n, m in outcome.sets.items() if n != "data"}
        own = {name: outcome.reference.density(family_name, m) for name, m in sets.items()}
        for place, kind in enumerate(known.kinds[:_SHOWN_KINDS]):
            densities = {name: density[place] for name, density in own.items()} | {
                "data": known.density[place]
            }
            cut = _occupied(np.stack(list(densities.values())))
            chosen = {name: density[cut] for name, density in densities.items()}
            bounds = edges[cut.start : cut.stop + 1]
            charts.append(draw_densities(family.label(int(kind)), family.unit, chosen, bounds))
    return (
        '<section><h2>Geometry against the data</h2><p class="lead">The most frequent kinds in the data.</p>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _occupied(densities: np.ndarray) -> slice:
    """The bins [bins] of [S, bins] that hold all but a thousandth of each set at both ends."""
    cumulated = densities.cumsum(1)
    low = int((cumulated > 1e-3).argmax(1).min())
    high = int((cumulated >= cumulated[:, -1:] - 1e-3).argmax(1).max()) + 1
    return slice(max(low - 1, 0), min(max(high, low) + 1, densities.shape[1]))


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td><code>{escape(str(value))}</code></td></tr>"
        for key, value in _flat(facts)
    )
    return f'<section><h2>How it was made</h2><div class="scroll"><table>{rows}</table></div></section>'


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        pairs += (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
        )
    return pairs
