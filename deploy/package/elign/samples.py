"""From the name of a policy or of a file to molecules, for the commands that sample and evaluate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elign.common.checkpoint import load_policy, read_description, resolve_policy
from elign.common.datasets import dataset_of
from elign.common.devices import resolve_device
from elign.common.errors import ConfigError
from elign.common.molecule_io import read_molecules
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy
from elign.common.sampling import sample_molecules
from elign.common.scoring import ForceField

MOLECULE_SUFFIXES = (".extxyz", ".xyz", ".sdf", ".parquet", ".npz")
Columns = dict[str, list[float] | list[str | None]]


@dataclass(frozen=True)
class PolicySource:
    """A policy, what it was called by, and the denoising steps to sample it with."""

    name: str
    policy: DiffusionPolicy
    num_steps: int

    @property
    def dataset(self) -> str:
        return self.policy.spec.dataset


def open_policy(name: str, *, device: str = "auto", num_steps: int | None = None) -> PolicySource:
    """Load a policy by name or path.

    num_steps: None takes the number it was post-trained with, or else all steps of its schedule. Raises
    CheckpointError or ConfigError.
    """
    policy = load_policy(name, resolve_device(device))
    trained_with = read_description(resolve_policy(name))["metadata"].get("num_steps")
    steps = num_steps or trained_with or policy.num_timesteps
    if steps > policy.num_timesteps:
        raise ConfigError(f"--steps {steps}: the policy {name} has {policy.num_timesteps} steps at most")
    return PolicySource(name, policy, int(steps))


@dataclass(frozen=True)
class FileSource:
    """Molecules of another generator: a file, and what is in it."""

    name: str
    molecules: Molecules

    @property
    def dataset(self) -> str:
        return dataset_of(self.molecules)


def open_source(
    name: str, *, device: str = "auto", num_steps: int | None = None
) -> PolicySource | FileSource:
    """A file of molecules where the name has such a suffix, else a policy; see ``open_policy``."""
    if Path(name).suffix.lower() in MOLECULE_SUFFIXES:
        return FileSource(name, read_molecules(name))
    return open_policy(name, device=device, num_steps=num_steps)


def draw_sizes(policy: DiffusionPolicy, number: int, seed: int) -> list[int]:
    """``number`` atom counts drawn as in the policy's training data."""
    histogram = policy.spec.size_histogram
    sizes = np.array(sorted(histogram))
    weights = np.array([histogram[int(size)] for size in sizes], dtype=np.float64)
    drawn = np.random.default_rng(seed).choice(sizes, size=number, p=weights / weights.sum())
    return [int(size) for size in drawn]


def parse_conditions(given: Sequence[str], policy: DiffusionPolicy) -> tuple[float, ...]:
    """The values of ``NAME=VALUE`` in the order of the policy's conditions; raises ConfigError."""
    wanted, values = policy.spec.conditioning, {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in wanted:
            known = ", ".join(wanted) or "nothing"
            raise ConfigError(f"--condition {text}: the policy is conditioned on {known}")
        try:
            values[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"--condition {text}: wanted {name}=NUMBER") from error
    return tuple(values[name] for name in wanted if name in values)


def sample_sizes(
    source: PolicySource,
    sizes: Sequence[int],
    *,
    seed: int,
    predict_at: int = 0,
    elements: Sequence[int] | None = None,
    conditions: Sequence[float] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Molecules:
    """One molecule of each size, in that order; predict_at, elements: see ``sample_molecules``.

    conditions: the value of each of the policy's conditions, for all molecules. Raises ConfigError when they
    are not as many as the policy has.
    """
    wanted = source.policy.spec.conditioning
    if len(conditions) != len(wanted):
        names = " ".join(f"--condition {name}=VALUE" for name in wanted)
        raise ConfigError(f"{source.name} is conditioned, so it needs {names} (elign sample)")
    context = torch.tensor(conditions).expand(len(sizes), -1) if wanted else None
    return sample_molecules(
        source.policy,
        sizes,
        num_steps=source.num_steps,
        seed=seed,
        predict_at=predict_at,
        context=context,
        elements=elements,
        progress=progress,
    )


def open_force_field(
    name: str, *, device: str = "auto", double: bool = False, options: Mapping[str, Any] | None = None
) -> ForceField:
    """A force field by name or path; a licence shown at first use goes to stderr.

    double: in float64. options: of an ``ase:`` calculator.
    """
    # Imported here: sampling alone needs no force field, and its libraries load slowly.
    from elign.reward_server.registry import load_force_field

    chosen = str(resolve_device(device))
    return load_force_field(
        name,
        device=chosen,
        dtype="float64" if double else "float32",
        options=options,
        show_licence=lambda text: print(text, file=sys.stderr),
    )


def force_field_columns(force_field: ForceField, molecules: Molecules) -> Columns:
    """What a force field says of molecules, as columns of a file; see ``score_columns``."""
    from elign.reward_server.score_file import score_columns

    return score_columns(molecules, force_field.evaluate(molecules))
