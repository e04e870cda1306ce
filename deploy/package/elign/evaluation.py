"""Evaluation of policies by name: sample them alike, judge the molecules, compare.

Composes the learner's evaluation with the reward server's force fields; both policies get the same sizes and
seeds, so that molecules are compared pair by pair.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from elign.common.chemistry import canonical_smiles, read_reference_smiles
from elign.common.data import load_dataset
from elign.common.errors import DataError
from elign.common.progress import Progress
from elign.common.scoring import ForceField
from elign.learner.evaluate import Comparison, Evaluation, Scorer, compare, evaluate_molecules
from elign.learner.evaluation_table import (
    comparison_json,
    comparison_table,
    evaluation_json,
    evaluation_table,
)
from elign.learner.gaming_watch import comparison_alarms
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.xtb import Gfn2ForceField
from elign.samples import PolicySource, draw_sizes, open_force_field, sample_sizes

SHIPPED_FORCE_FIELD = "elign-mace-small"
_WIDTH = 120
ShowProgress = Callable[[str], AbstractContextManager[Progress]]


def evaluate_policies(
    policy: PolicySource,
    baseline: PolicySource | None,
    *,
    number: int,
    seed: int,
    force_fields: Sequence[str],
    reference: str | None,
    device: str,
    show_progress: ShowProgress,
) -> Evaluation | Comparison:
    """Judge ``number`` molecules of ``policy``; with a ``baseline``, as many of it, and compare pair by pair.

    force_fields: names or paths of the judges. reference: known molecules, see ``load_reference``.
    Raises DataError when the two policies make molecules of different data sets.
    """
    dataset = policy.policy.spec.dataset
    if baseline is not None and baseline.policy.spec.dataset != dataset:
        raise DataError(
            f"{policy.name} makes molecules of {dataset}, {baseline.name} of {baseline.policy.spec.dataset}; "
            "only policies of the same data set can be compared"
        )
    judges = open_judges(force_fields, dataset, device=device)
    scorers: dict[str, Scorer] = {judge.name: judge.evaluate for judge in judges}
    known = None if reference is None else load_reference(reference, dataset)

    sizes = draw_sizes(policy.policy, number, seed)

    def judged(source: PolicySource) -> Evaluation:
        with show_progress(f"sampling {source.name}") as progress:
            molecules = sample_sizes(source, sizes, seed=seed, progress=progress)
        return evaluate_molecules(molecules, dataset, scorers, known, seed=seed)

    if baseline is None:
        return judged(policy)
    return compare(judged(baseline), judged(policy), seed=seed)


def open_judges(names: Sequence[str], dataset: str, *, device: str) -> list[ForceField]:
    """The force fields that judge molecules of ``dataset``.

    Beside the shipped force field, GFN2-xTB counts formation energies from that one's element references,
    which were fitted to GFN2-xTB on QM9: so both have one zero, and energy is not lowered by another element
    mix alone, as it is when counted from free atoms.
    """
    judges = [open_force_field(name, device=device) for name in names]
    shipped = next(
        (j for j in judges if isinstance(j, MaceForceField) and j.name == SHIPPED_FORCE_FIELD), None
    )
    if shipped is None or dataset != "qm9":
        return judges
    shared = Gfn2ForceField(reference_energies=shipped.reference_energies)
    return [shared if judge.name == Gfn2ForceField.name else judge for judge in judges]


def load_reference(name_or_path: str, dataset: str) -> frozenset[str]:
    """Canonical SMILES of known molecules: from a list (.gz), or of a data set by name or file."""
    if Path(name_or_path).suffix == ".gz":
        return read_reference_smiles(name_or_path)
    molecules = load_dataset(name_or_path).molecules
    return frozenset(name for name in canonical_smiles(molecules, dataset) if name is not None)


def evaluation_as_json(result: Evaluation | Comparison) -> dict[str, Any]:
    """The layout that ``learner.evaluation_table`` documents."""
    return comparison_json(result) if isinstance(result, Comparison) else evaluation_json(result)


def gaming_alarms(result: Evaluation | Comparison, force_field: str) -> dict[str, str]:
    """Warnings by name of a policy that games ``force_field``; none where there is no baseline to tell by."""
    if not isinstance(result, Comparison) or force_field == Gfn2ForceField.name:
        return {}
    names = [name for name in result.trained.verdicts if name != Gfn2ForceField.name]
    found = comparison_alarms(result, field=names[0], judge=Gfn2ForceField.name)
    return {str(alarm): text for alarm, text in found.items()}


def print_evaluation(result: Evaluation | Comparison, title: str) -> None:
    """The table, on standard output; wide enough not to be wrapped where that is no terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(
        comparison_table(result, title) if isinstance(result, Comparison) else evaluation_table(result, title)
    )
