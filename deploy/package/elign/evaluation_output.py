"""What an evaluation has found: on the terminal, and as files of a folder with how it was made."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from elign.common.devices import cpu_name
from elign.common.storage import write_json, write_text
from elign.evaluation import EvaluationPlan, Source
from elign.evaluation_sets import source_facts
from elign.learner.evaluate import Comparison
from elign.learner.evaluation_latex import latex_table
from elign.learner.evaluation_outcome import Outcome, outcome_json
from elign.learner.evaluation_report import write_evaluation_report
from elign.learner.evaluation_table import comparison_table, evaluation_table
from elign.learner.speed import speed_text

_WIDTH = 132


def print_outcome(outcome: Outcome, title: str) -> None:
    """The table and the alarms, on standard output; wide enough where that is no terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    result = outcome.result
    if isinstance(result, Comparison):
        console.print(comparison_table(result, title, outcome.data))
    else:
        console.print(evaluation_table(result, title, outcome.data))
    if outcome.speed is not None:
        console.print(speed_text(outcome.speed))
    for alarm, text in outcome.alarms.items():
        # SMILES have brackets, which are no markup
        console.print(f"warning: {alarm}: {text}", style="red", markup=False, highlight=False)


def write_outcome(
    folder: Path,
    outcome: Outcome,
    plan: EvaluationPlan,
    sources: Sequence[Source],
    settings: Mapping[str, Any],
) -> None:
    """report.html, result.json (the layout of ``outcome_json``, and how it was made) and table.tex."""
    made = _provenance(plan, sources)
    write_json(folder / "result.json", dict(settings) | outcome_json(outcome) | {"made": made})
    write_text(folder / "table.tex", latex_table(outcome))
    write_evaluation_report(folder / "report.html", outcome, made)


def _provenance(plan: EvaluationPlan, sources: Sequence[Source]) -> dict[str, Any]:
    """The command, the versions, the seeds, the sources and the level of theory."""
    packages = ("elign", "torch", "numpy", "rdkit", "ase", "tblite", "pyscf", "ray")
    made: dict[str, Any] = {
        "command": shlex.join(["elign", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "machine": cpu_name(),
        "seed": plan.seed,
        "sources": {source.name: source_facts(source) for source in sources},
        "force_fields": ", ".join(plan.force_fields),
        "data": plan.data,
        "relaxed_by": plan.relax,
    }
    if plan.dft is not None:
        made["dft"] = asdict(plan.dft)
    return made


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
