"""Bond lengths, angles and torsions of whole batches, each with what kind of bond, angle or torsion it is.

Bonds are EDM's (``stability``). A bond is known by its elements and order, an angle by its three elements, a
torsion by its middle bond; a torsion counts from 0 to 180 degrees, so that a mirror image has the same.

    terms = bond_lengths(molecules, "qm9")
    terms.values[terms.kinds == kind]           # Å
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from elign.common.molecules import Molecules
from elign.common.stability import bond_orders

_BASE = 128
_LINES = ("?", "–", "=", "≡")
_ATOMS_PER_CHUNK = 1 << 14


@dataclass(frozen=True)
class Terms:
    """M terms of B molecules: molecule [M] whose it is, kinds [M] codes, values [M] in Å or degrees."""

    molecule: np.ndarray
    kinds: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class _Graphs:
    """Positions [B, N, 3] float64, numbers [B, N], orders [B, N, N], neighbours [B, N, D], -1 where none."""

    positions: Tensor
    numbers: Tensor
    orders: Tensor
    neighbours: Tensor


def bond_lengths(molecules: Molecules, dataset: str) -> Terms:
    """Every bond once, in Å; kind: elements, order."""
    return _collect(molecules, dataset, _bonds)


def bond_angles(molecules: Molecules, dataset: str) -> Terms:
    """Every pair of bonds with an atom in common, in degrees; kind: end, middle and end element."""
    return _collect(molecules, dataset, _angles)


def torsions(molecules: Molecules, dataset: str) -> Terms:
    """Every chain of three bonds, in degrees from 0 to 180; kind: elements and order of the middle bond."""
    return _collect(molecules, dataset, _torsions)


def bond_label(kind: int) -> str:
    """``C–H``, ``C=O``."""
    first, second, order = _digits(kind)
    return f"{chemical_symbols[first]}{_LINES[order]}{chemical_symbols[second]}"


def angle_label(kind: int) -> str:
    """``H–C–O``."""
    return "–".join(chemical_symbols[z] for z in _digits(kind))


def torsion_label(kind: int) -> str:
    """``·–C=C–·``."""
    return f"·–{bond_label(kind)}–·"


def _collect(
    molecules: Molecules, dataset: str, terms: Callable[[_Graphs], tuple[Tensor, Tensor, Tensor]]
) -> Terms:
    parts = []
    for start, chunk in _chunks(molecules):
        molecule, kinds, values = terms(_graphs(chunk, dataset))
        parts.append(((molecule + start).numpy(), kinds.numpy(), values.numpy()))
    if not parts:
        return Terms(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Terms(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chunks(molecules: Molecules) -> Iterator[tuple[int, Molecules]]:
    step = max(1, _ATOMS_PER_CHUNK // max(molecules.node_mask.shape[1], 1))
    for start in range(0, len(molecules), step):
        yield start, molecules[start : start + step].to("cpu")


def _graphs(molecules: Molecules, dataset: str) -> _Graphs:
    orders = bond_orders(molecules, dataset)
    degree = max(int((orders > 0).sum(-1).max()) if orders.numel() else 0, 1)
    bonded, neighbours = (orders > 0).long().sort(dim=-1, descending=True, stable=True)
    degree = min(degree, orders.shape[-1])
    neighbours = neighbours[..., :degree].masked_fill(bonded[..., :degree] == 0, -1)
    return _Graphs(molecules.positions.double(), molecules.atomic_numbers, orders, neighbours)


def _bonds(graphs: _Graphs) -> tuple[Tensor, Tensor, Tensor]:
    b, i, j = torch.triu(graphs.orders, 1).nonzero(as_tuple=True)
    kinds = _bond_kind(graphs, b, i, j)
    return b, kinds, (graphs.positions[b, i] - graphs.positions[b, j]).norm(dim=-1)


def _angles(graphs: _Graphs) -> tuple[Tensor, Tensor, Tensor]:
    there = graphs.neighbours >= 0
    both = torch.triu(there[..., :, None] & there[..., None, :], 1)
    b, centre, p, q = both.nonzero(as_tuple=True)
    i, k = graphs.neighbours[b, centre, p], graphs.neighbours[b, centre, q]
    ends = torch.stack([graphs.numbers[b, i], graphs.numbers[b, k]])
    kinds = _code(ends.amin(0), graphs.numbers[b, centre], ends.amax(0))
    x = graphs.positions
    return b, kinds, _angle(x[b, i] - x[b, centre], x[b, k] - x[b, centre])


def _torsions(graphs: _Graphs) -> tuple[Tensor, Tensor, Tensor]:
    b, j, k = torch.triu(graphs.orders, 1).nonzero(as_tuple=True)
    before, after = graphs.neighbours[b, j], graphs.neighbours[b, k]  # [M, D]
    outer = ((before >= 0) & (before != k[:, None]))[:, :, None]
    outer = (
        outer & ((after >= 0) & (after != j[:, None]))[:, None, :] & (before[:, :, None] != after[:, None])
    )
    bond, p, q = outer.nonzero(as_tuple=True)
    b, i, j, k, l = b[bond], before[bond, p], j[bond], k[bond], after[bond, q]
    x = graphs.positions
    axis = x[b, k] - x[b, j]
    first = torch.linalg.cross(x[b, j] - x[b, i], axis)
    second = torch.linalg.cross(axis, x[b, l] - x[b, k])
    return b, _bond_kind(graphs, b, j, k), _angle(first, second)


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """[M] degrees between vectors [M, 3]; exact near 0 and 180 too."""
    across = torch.linalg.cross(first, second).norm(dim=-1)
    return torch.rad2deg(torch.atan2(across, (first * second).sum(-1)))


def _bond_kind(graphs: _Graphs, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
    ends = torch.stack([graphs.numbers[b, i], graphs.numbers[b, j]])
    return _code(ends.amin(0), ends.amax(0), graphs.orders[b, i, j])


def _code(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    return (first * _BASE + second) * _BASE + third


def _digits(kind: int) -> tuple[int, int, int]:
    return kind // _BASE**2, kind // _BASE % _BASE, kind % _BASE
