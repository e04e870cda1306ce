"""Policies on disk: a folder with ``model.safetensors`` and ``policy.json``; loading one runs no code.

A name is looked up among the shipped policies, then in the folder of the user (``user_folder``);
anything else is a path or a URI: a policy folder, or a run directory, whose ``best`` is taken.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elign.common.errors import CheckpointError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.remote_folder import RemoteFolder, is_uri, place_for
from elign.common.storage import write_directory, write_json
from elign.common.user_folder import user_folder

WEIGHTS = "model.safetensors"
DESCRIPTION = "policy.json"
FORMAT = "elign-policy-1"
SHIPPED = Path(__file__).parent / "assets" / "policies"


@dataclass(frozen=True)
class PolicyEntry:
    """A policy that can be named; metadata is what its maker wrote (how it was trained, quality, licence)."""

    name: str
    path: Path
    metadata: dict[str, Any]
    num_parameters: int
    num_bytes: int


def save_policy(policy: DiffusionPolicy, folder: Path | str, metadata: dict[str, Any] | None = None) -> None:
    """Write both files at once; a folder that stood there is replaced whole or not at all."""

    def write(temporary: Path) -> None:
        write_policy_files(policy.spec, dict(policy.state_dict()), temporary, metadata or {})

    write_directory(folder, write)


def write_policy_files(
    spec: PolicySpec, weights: dict[str, Tensor], folder: Path, metadata: dict[str, Any]
) -> None:
    """Both files into a folder that exists; weights as ``DiffusionPolicy.state_dict`` gives them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    description = {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "num_parameters": sum(t.numel() for t in tensors.values()),
        "sha256": _sha256(folder / WEIGHTS),
        "metadata": metadata,
    }
    write_json(folder / DESCRIPTION, description)


def load_policy(name_or_path: str | Path, device: torch.device | str = "cpu") -> DiffusionPolicy:
    """The policy in evaluation mode. Raises CheckpointError where it is missing, damaged or foreign."""
    folder = resolve_policy(name_or_path)
    description = read_description(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise CheckpointError(f"{folder} has no {WEIGHTS}")
    if _sha256(weights) != description.get("sha256"):
        raise CheckpointError(
            f"{weights} is damaged: its checksum is not the one in {DESCRIPTION}; copy it again"
        )
    try:
        policy = DiffusionPolicy(PolicySpec.model_validate(description["spec"]))
        policy.load_state_dict(load_file(weights))
    except (ValidationError, SafetensorError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder} is not a policy this version can read: {error}") from error
    return policy.to(device).eval()


def read_description(folder: Path) -> dict[str, Any]:
    """What ``policy.json`` holds: format, spec, num_parameters, sha256, metadata."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {DESCRIPTION}: it is not a policy folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of the format {FORMAT}")
    return description


def resolve_policy(name_or_path: str | Path) -> Path:
    """The folder a name or path stands for; an error lists the known names."""
    for parent in (SHIPPED, user_folder() / "policies"):
        named = parent / str(name_or_path)
        if (named / DESCRIPTION).exists():
            return named
    path = _fetched(str(name_or_path)) if is_uri(name_or_path) else Path(name_or_path)
    for folder in (path, path / "best"):
        if (folder / DESCRIPTION).exists():
            return folder
    if path.is_dir() and (path / "config.yaml").exists():
        raise CheckpointError(f"run {path} has no best policy yet; let it finish its first checkpoint")
    if path.is_dir():
        raise CheckpointError(
            f"{path} holds no {DESCRIPTION}; public EDM checkpoints go through `elign policies import`"
        )
    known = ", ".join(entry.name for entry in list_policies()) or "none"
    raise CheckpointError(f"no policy {str(name_or_path)!r}: not a folder, and the known names are: {known}")


@cache
def _fetched(uri: str) -> Path:
    """A copy of what is needed of it, in the user's folder; each process makes it anew."""
    remote, copy = RemoteFolder(uri), place_for(uri, "fetched")

    def fetch(folder: Path) -> None:
        # the description first: one that a run replaces meanwhile then shows that the weights are others
        names = [f"{part}{name}" for name in (DESCRIPTION, WEIGHTS) for part in ("", "best/")]
        if not remote.get(names, folder):
            raise CheckpointError(f"{uri} holds neither {DESCRIPTION} nor best/{DESCRIPTION}: no policy, yet")

    write_directory(copy, fetch)
    return copy


def list_policies() -> list[PolicyEntry]:
    """Shipped policies, then the user's."""
    entries = []
    for parent in (SHIPPED, user_folder() / "policies"):
        for path in sorted(parent.glob(f"*/{DESCRIPTION}")):
            description = read_description(path.parent)
            num_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
            entries.append(
                PolicyEntry(
                    path.parent.name,
                    path.parent,
                    description["metadata"],
                    description["num_parameters"],
                    num_bytes,
                )
            )
    return entries


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
