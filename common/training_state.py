"""State of a training on disk: tensors as safetensors, counters as JSON, in a folder replaced as a whole.

save_training(folder, {"policy": policy.state_dict(), "moments": read_moments(...)}, {"step": 7})
parts, counters = load_training(folder)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elign.common.errors import CheckpointError
from elign.common.storage import write_directory, write_json

TENSORS, COUNTERS = "tensors.safetensors", "counters.json"


def save_training(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], counters: Mapping[str, Any]
) -> None:
    """Write named groups of tensors and plain values; ``folder`` is replaced whole or not at all."""
    tensors = {f"{part}/{name}": value for part, group in parts.items() for name, value in group.items()}

    def write(temporary: Path) -> None:
        save_file(copy_tensors(tensors), temporary / TENSORS)
        write_json(temporary / COUNTERS, dict(counters))

    write_directory(folder, write)


def load_training(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Groups of tensors and counters as they were saved. Raises CheckpointError, naming the folder."""
    try:
        counters = json.loads((folder / COUNTERS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the state of training in {folder}: {error}") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        part, name = key.split("/", 1)
        parts.setdefault(part, {})[name] = value
    return parts, counters


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies on the CPU that later training steps do not touch."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def read_moments(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's per-parameter tensors, keyed ``parameter/field``."""
    return copy_tensors(
        {
            f"{name}/{field}": value
            for name, parameter in module.named_parameters()
            for field, value in optimizer.state.get(parameter, {}).items()
        }
    )


def write_moments(optimizer: torch.optim.Optimizer, module: nn.Module, moments: Mapping[str, Tensor]) -> None:
    """Put back what ``read_moments`` gave. Raises CheckpointError where names or shapes do not fit."""
    parameters = dict(module.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, field = key.rsplit("/", 1)
        if name not in parameters or (field != "step" and value.shape != parameters[name].shape):
            raise CheckpointError(
                f"optimizer state {key} {tuple(value.shape)} does not belong to this network"
            )
        device = "cpu" if field == "step" else parameters[name].device
        states.setdefault(name, {})[field] = value.to(device, copy=True)
    optimizer.state.clear()
    for name, state in states.items():
        optimizer.state[parameters[name]] = state
