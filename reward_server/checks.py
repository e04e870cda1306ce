"""Named failures: what a force field must not be asked, and what it must not be believed.

A network answers anything: NaN coordinates give no edges and thus zero forces, a lone atom feels nothing,
atoms on top of each other may feel little. A policy finds such holes within minutes, so they are closed
here, before the model sees a molecule, and its answer is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elign.common.geometry import minimum_distance, num_pieces
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.packing import size_buckets

_CHUNK_PAIRS = 4_000_000  # bounds the [B, N, N] tensors of one chunk


@dataclass(frozen=True)
class Checks:
    """Limits of what is judged: min_distance between atoms in Å, force_limit on each atom in eV/Å."""

    min_distance: float = 0.4
    force_limit: float = 200.0
    one_piece: bool = True


DEFAULT_CHECKS = Checks()


def check_structures(
    molecules: Molecules, elements: Iterable[int], checks: Checks
) -> tuple[Failure | None, ...]:
    """Why each molecule must not reach the model, None where it may; the first reason that applies."""
    failures: list[Failure | None] = [None] * len(molecules)
    for index, bucket in size_buckets(molecules):
        chunk = max(1, _CHUNK_PAIRS // max(1, bucket.node_mask.shape[1]) ** 2)
        for start in range(0, len(bucket), chunk):
            found = _check_chunk(bucket[start : start + chunk], elements, checks)
            for i, failure in zip(index[start : start + chunk].tolist(), found, strict=True):
                failures[i] = failure
    return tuple(failures)


def check_forces(forces: Tensor, energy: Tensor, force_limit: float) -> Tensor:
    """[B] bool: where an atom's force exceeds the limit, or the model's answer is not finite.

    forces: [B, N, 3] eV/Å, 0 where padded. energy: [B] eV.
    """
    beyond = ~(torch.linalg.vector_norm(forces, dim=-1) <= force_limit)
    failed: Tensor = beyond.any(1) | ~torch.isfinite(energy)
    return failed


def assemble_result(
    molecules: Molecules,
    energy: Tensor,
    forces: Tensor,
    references: Tensor,
    failures: Sequence[Failure | None],
) -> ForceFieldResult:
    """The answer of a whole batch, NaN where a molecule has a failure.

    energy: [B] eV. forces: [B, N, 3] eV/Å. references: [B] eV, the sum of each molecule's reference energies.
    """
    failed = torch.tensor([f is not None for f in failures], dtype=torch.bool)
    energy = energy.double().masked_fill(failed, torch.nan)
    real = molecules.node_mask.cpu().unsqueeze(-1)
    forces = forces.masked_fill(failed[:, None, None], torch.nan).masked_fill(~real, 0.0)
    formation = (energy - references) / molecules.num_atoms.cpu().clamp(min=1)
    return ForceFieldResult(energy, forces, formation, tuple(failures))


def _check_chunk(molecules: Molecules, elements: Iterable[int], checks: Checks) -> list[Failure | None]:
    mask = molecules.node_mask
    known = torch.tensor(sorted(elements), device=mask.device)
    too_close = ~(minimum_distance(molecules) >= checks.min_distance)
    reasons = [
        (Failure.NON_FINITE, (~torch.isfinite(molecules.positions).all(-1) & mask).any(1)),
        (Failure.TOO_FEW_ATOMS, molecules.num_atoms < 2),
        (Failure.UNSUPPORTED_ELEMENT, (~torch.isin(molecules.atomic_numbers, known) & mask).any(1)),
        (Failure.ATOMS_TOO_CLOSE, too_close),
    ]
    if checks.one_piece:
        reasons.append((Failure.SEVERAL_PIECES, num_pieces(molecules) > 1))
    failures: list[Failure | None] = [None] * len(molecules)
    for failure, where in reversed(reasons):
        for index in where.nonzero().flatten().tolist():
            failures[index] = failure
    return failures
