"""An evaluation as a LaTeX table (package booktabs): estimates, and the difference with its interval.

Bold marks a difference whose interval excludes zero.
"""

from __future__ import annotations

from elign.common.statistics import Interval
from elign.learner.evaluate import Comparison, Evaluation
from elign.learner.evaluation_outcome import Outcome
from elign.learner.evaluation_table import label, number_text, range_text
from elign.learner.measures import Measure

_REPLACED = {
    "\\": r"\textbackslash{}",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "Å": r"\AA{}",
    "°": r"$^\circ$",
}


def latex_table(outcome: Outcome) -> str:
    """A ``tabular``; columns: measure, each set, and for two policies the difference and its interval."""
    names = list(outcome.evaluations)
    comparison = outcome.result if isinstance(outcome.result, Comparison) else None
    headings = ["measure", *names, *(["difference", r"95 % interval"] if comparison else ["95 % interval"])]
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"\toprule"]
    lines += [" & ".join(escape(heading) for heading in headings) + r" \\", r"\midrule"]
    for name, measure in outcome.evaluations["trained"].measures.items():
        unit = f" [{measure.unit}]" if measure.unit not in ("fraction", "") else ""
        cells = [escape(label(name, measure) + unit)]
        cells += [escape(_estimate(e, name, measure)) for e in outcome.evaluations.values()]
        if comparison is None:
            cells.append(escape(range_text(outcome.evaluations["trained"].summary[name], measure)))
        else:
            cells += _difference(comparison.differences.get(name), measure)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_REPLACED.get(character, character) for character in text)


def _estimate(evaluation: Evaluation, name: str, measure: Measure) -> str:
    return number_text(evaluation.summary[name].estimate, measure) if name in evaluation.summary else "–"


def _difference(interval: Interval | None, measure: Measure) -> list[str]:
    if interval is None:
        return ["--", "--"]
    text = escape(number_text(interval.estimate, measure, signed=True))
    bold = rf"\textbf{{{text}}}" if interval.excludes_zero else text
    return [bold, escape(range_text(interval, measure, signed=True))]
