"""From dense molecules to the ragged graphs a force field wants: the one place that converts.

``plan_batches`` groups molecules of similar size so that no batch has more edges than a budget (a CPU's
cache, a GPU's memory); ``pack`` builds one batch, with every pair of atoms within the cut-off as two
directed edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elign.common.geometry import pairwise_distances
from elign.common.molecules import Molecules

_CHUNK_PAIRS = 4_000_000


@dataclass(frozen=True)
class PackedBatch:
    """G molecules as one graph of n atoms and E directed edges.

    positions: [n, 3] Å. atomic_numbers: [n] int64. edge_index: [2, E] int64, (sender, receiver).
    batch: [n] int64, the molecule of each atom. ptr: [G+1] int64, where each molecule's atoms begin.
    """

    positions: Tensor
    atomic_numbers: Tensor
    edge_index: Tensor
    batch: Tensor
    ptr: Tensor

    @property
    def num_graphs(self) -> int:
        return self.ptr.shape[0] - 1


def count_edges(molecules: Molecules, cutoff: float) -> Tensor:
    """[B] int64: directed edges of each molecule within the cut-off (Å)."""
    size = max(1, molecules.node_mask.shape[1])
    chunk = max(1, _CHUNK_PAIRS // size**2)
    counts = [
        (pairwise_distances(molecules[start : start + chunk]) < cutoff).sum((1, 2))
        for start in range(0, len(molecules), chunk)
    ]
    return torch.cat(counts) if counts else torch.zeros(0, dtype=torch.int64)


def plan_batches(edges: Tensor, max_edges: int) -> list[Tensor]:
    """Indices of molecules per batch: sorted by edges, cut greedily at ``max_edges``.

    edges: [B] int64. A molecule that alone exceeds the budget is a batch of its own.
    """
    order = torch.argsort(edges, stable=True)
    batches: list[Tensor] = []
    start, total = 0, 0
    for position, count in enumerate(edges[order].tolist()):
        if position > start and total + count > max_edges:
            batches.append(order[start:position])
            start, total = position, 0
        total += count
    if start < len(order):
        batches.append(order[start:])
    return batches


def pack(molecules: Molecules, cutoff: float) -> PackedBatch:
    """One graph out of a batch; edges between atoms of one molecule closer than ``cutoff`` (Å)."""
    mask = molecules.node_mask
    atom_index = (mask.flatten().cumsum(0) - 1).view(mask.shape)
    graph, receiver, sender = (pairwise_distances(molecules) < cutoff).nonzero(as_tuple=True)
    edge_index = torch.stack([atom_index[graph, sender], atom_index[graph, receiver]])
    counts = molecules.num_atoms
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    batch = torch.arange(len(molecules), device=mask.device).repeat_interleave(counts)
    return PackedBatch(molecules.positions[mask], molecules.atomic_numbers[mask], edge_index, batch, ptr)


def unpack(values: Tensor, node_mask: Tensor) -> Tensor:
    """[n, ...] ragged values back to [B, N, ...], 0 where padded; the inverse of ``pack`` for one batch."""
    dense = values.new_zeros((*node_mask.shape, *values.shape[1:]))
    dense[node_mask] = values
    return dense
