"""Checkpoints of a run: safetensors and JSON, written whole or not at all, with checksums.

A folder ``checkpoints/iteration_000010`` is a policy folder (``model.safetensors``, ``policy.json``: the
trained weights) with two more files: ``learner.safetensors`` (averaged weights, AdamW's moments) and
``state.json``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elign.common.checkpoint import WEIGHTS, load_policy, write_policy_files
from elign.common.errors import CheckpointError
from elign.common.policy import PolicySpec
from elign.common.storage import write_directory, write_json
from elign.learner.learner_state import LearnerState
from elign.learner.plan_feed import PlanState

CHECKPOINTS, LEARNER_FILE, STATE_FILE = "checkpoints", "learner.safetensors", "state.json"
FORMAT = "elign-run-2"
log = logging.getLogger("elign")


@dataclass(frozen=True)
class RunCheckpoint:
    """What a run needs to go on: the learner's state after ``completed_iterations``, and its plans'."""

    completed_iterations: int
    learner: LearnerState
    plans: PlanState


def save_checkpoint(
    run_dir: Path, checkpoint: RunCheckpoint, spec: PolicySpec, metadata: dict[str, Any], *, keep_last: int
) -> Path:
    """Write ``checkpoints/iteration_...`` and remove all but the newest ``keep_last``; returns the folder."""
    folder = run_dir / CHECKPOINTS / f"iteration_{checkpoint.completed_iterations:06d}"
    learner = checkpoint.learner

    def write(temporary: Path) -> None:
        write_policy_files(spec, learner.weights, temporary, metadata)
        tensors = {f"moments/{name}": tensor for name, tensor in learner.moments.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in (learner.average or {}).items()}
        save_file(tensors, temporary / LEARNER_FILE)
        (temporary / LEARNER_FILE).chmod(0o644)
        state = {
            "format": FORMAT,
            "completed_iterations": checkpoint.completed_iterations,
            **asdict(checkpoint.plans),
            "sha256": {name: _sha256(temporary / name) for name in (WEIGHTS, LEARNER_FILE)},
        }
        write_json(temporary / STATE_FILE, state)

    write_directory(folder, write)
    for old in list_checkpoints(run_dir)[:-keep_last]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Folders of the run's checkpoints, oldest first."""
    return sorted(path for path in (run_dir / CHECKPOINTS).glob("iteration_*") if path.is_dir())


def load_newest(run_dir: Path) -> RunCheckpoint | None:
    """The newest checkpoint that is whole; None where there is no checkpoint at all.

    Damaged ones that are newer get a warning and ``damaged_`` before their name. Raises CheckpointError, and
    renames nothing, when none is whole.
    """
    damaged: dict[Path, CheckpointError] = {}
    for folder in reversed(list_checkpoints(run_dir)):
        try:
            checkpoint = load_checkpoint(folder)
        except CheckpointError as error:
            damaged[folder] = error
            continue
        for path, reason in damaged.items():
            log.warning("%s; going on from %s instead", reason, folder.name)
            path.rename(path.with_name(f"damaged_{path.name}"))
        return checkpoint
    if damaged:
        raise next(iter(damaged.values()))
    return None


def load_checkpoint(folder: Path) -> RunCheckpoint:
    """Read a checkpoint; raises CheckpointError, naming the file, when it is missing, damaged or foreign."""
    state = _read_state(folder)
    for name, checksum in state["sha256"].items():
        if not (folder / name).exists() or _sha256(folder / name) != checksum:
            raise CheckpointError(f"{folder / name} is missing or damaged")
    weights: dict[str, Tensor] = dict(load_policy(folder).state_dict())
    try:
        tensors = load_file(folder / LEARNER_FILE)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / LEARNER_FILE} is not a safetensors file: {error}") from error
    average = _with_prefix(tensors, "average/")
    learner = LearnerState(weights, average or None, _with_prefix(tensors, "moments/"))
    plans = PlanState(int(state["next_group"]), tuple(state["open_groups"]))
    return RunCheckpoint(int(state["completed_iterations"]), learner, plans)


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of the format {FORMAT}")
    return state


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
