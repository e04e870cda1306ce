"""The shipped kind of force field: a small MACE, built from a specification and stored as safetensors + JSON.

network = build_network(MaceSpec(channels=64, r_max=5.0, ...), torch.float32)
save_network(network, spec, metadata, folder)
network, description = load_network(folder, torch.float32)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elign.common.config import Settings
from elign.common.errors import ForceFieldError
from elign.common.storage import write_atomic, write_json
from elign.reward_server.packing import PackedBatch

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "force_field.json"
UNRESTRICTED_LOAD = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class MaceSpec(Settings):
    """Architecture and constants of a MACE. Energies in eV, lengths in Å."""

    elements: tuple[int, ...] = Field(default=(1, 6, 7, 8, 9), description="Atomic numbers, ascending")
    reference_energies: tuple[float, ...] = Field(
        description="eV, one per element; a molecule's formation energy is what lies above their sum"
    )
    channels: int = Field(default=64, ge=1)
    num_layers: int = Field(default=2, ge=1)
    r_max: float = Field(default=5.0, gt=0)
    max_ell: int = Field(default=2, ge=0)
    correlation: int = Field(default=2, ge=1)
    num_bessel: int = Field(default=8, ge=1)
    cutoff_power: int = Field(default=5, ge=1)
    radial_width: int = Field(default=32, ge=1)
    readout_width: int = Field(default=16, ge=1)
    average_neighbours: float = Field(default=10.0, gt=0)
    energy_scale: float = Field(default=1.0, gt=0, description="eV, of the network's raw energy per atom")


class ForceFieldDescription(Settings):
    """What ``force_field.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format: Literal["elign-mace/1"] = "elign-mace/1"
    spec: MaceSpec
    metadata: dict[str, Any] = Field(default_factory=dict)


def build_network(spec: MaceSpec, dtype: torch.dtype) -> nn.Module:
    """A MACE with random weights (torch's global generator) and ZBL repulsion, on the CPU."""
    modules, o3 = import_mace()
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    with _default_dtype(dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = modules.ScaleShiftMACE(
            r_max=spec.r_max,
            num_bessel=spec.num_bessel,
            num_polynomial_cutoff=spec.cutoff_power,
            max_ell=spec.max_ell,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=spec.num_layers,
            num_elements=len(spec.elements),
            hidden_irreps=o3.Irreps(f"{spec.channels}x0e"),
            MLP_irreps=o3.Irreps(f"{spec.readout_width}x0e"),
            atomic_energies=np.array(spec.reference_energies),
            avg_num_neighbors=spec.average_neighbours,
            atomic_numbers=list(spec.elements),
            correlation=spec.correlation,
            gate=torch.nn.functional.silu,
            pair_repulsion=True,
            atomic_inter_scale=spec.energy_scale,
            atomic_inter_shift=0.0,
            radial_MLP=[spec.radial_width] * 3,
        )
    return network


def graph_input(packed: PackedBatch, network: nn.Module) -> dict[str, Tensor]:
    """The dictionary MACE wants. Every element must be one the network knows."""
    elements = cast(Tensor, network.atomic_numbers)
    lookup = torch.full((120,), -1, dtype=torch.int64, device=elements.device)
    lookup[elements] = torch.arange(len(elements), device=elements.device)
    one_hot = nn.functional.one_hot(lookup[packed.atomic_numbers], len(elements))
    no_shift = packed.positions.new_zeros((packed.edge_index.shape[1], 3))
    return {
        "positions": packed.positions,
        "node_attrs": one_hot.to(packed.positions.dtype),
        "edge_index": packed.edge_index,
        "shifts": no_shift,
        "unit_shifts": no_shift,
        "cell": packed.positions.new_zeros((3 * packed.num_graphs, 3)),
        "batch": packed.batch,
        "ptr": packed.ptr,
    }


def save_network(network: nn.Module, spec: MaceSpec, metadata: dict[str, Any], folder: Path) -> None:
    """Write ``model.safetensors`` and ``force_field.json`` into a folder, each atomically.

    The constants of convolutions that were replaced by fused ones are taken from a fresh network.
    """
    tensors = build_network(spec, torch.float32).state_dict() | network.state_dict()
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomic(folder / WEIGHTS_FILE, lambda temporary: save_file(weights, temporary))
    description = ForceFieldDescription(spec=spec, metadata=metadata)
    write_json(folder / DESCRIPTION_FILE, description.model_dump(mode="json"))


def load_network(folder: Path, dtype: torch.dtype) -> tuple[nn.Module, ForceFieldDescription]:
    """Read back what ``save_network`` wrote; runs no code from the files.

    Raises ForceFieldError naming the file when it is missing, truncated or of another kind.
    """
    description = read_description(folder)
    network = build_network(description.spec, dtype)
    path = folder / WEIGHTS_FILE
    try:
        weights = load_file(path)
        network.load_state_dict(weights, strict=True)
    except (SafetensorError, OSError) as error:
        raise ForceFieldError(f"force field weights {path} cannot be read: {error}") from error
    except RuntimeError as error:
        raise ForceFieldError(
            f"force field weights {path} do not fit {DESCRIPTION_FILE} beside them: {error}"
        ) from error
    return network.to(dtype), description


def read_description(folder: Path) -> ForceFieldDescription:
    """The contents of ``force_field.json``. Raises ForceFieldError when missing or not one of ours."""
    path = folder / DESCRIPTION_FILE
    try:
        return ForceFieldDescription.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ForceFieldError(f"force field description {path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise ForceFieldError(f"{path} is not the description of an Elign force field: {error}") from error


def import_mace() -> tuple[Any, Any]:
    """(mace.modules, e3nn.o3), imported on first use."""
    with importing_mace():
        from e3nn import o3
        from mace import modules
    return modules, o3


@contextlib.contextmanager
def importing_mace() -> Iterator[None]:
    """Around any import from mace: quiet, and torch.load stays restricted.

    mace's modules switch torch.load to unrestricted pickles for the whole process; that is undone at the end.
    """
    torch.serialization.add_safe_globals([slice])  # e3nn 0.4.4 keeps its constants in a .pt file
    with (
        keep_environment(UNRESTRICTED_LOAD),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def keep_environment(name: str) -> Iterator[None]:
    """Put an environment variable back to what it was."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
