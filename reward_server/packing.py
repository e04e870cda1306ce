"""From dense molecules to the ragged graphs a force field wants: the one place that converts.

``plan_batches`` groups molecules of similar size so that no batch has more edges than a budget (see
``budget``); ``pack`` builds one batch, with every pair of atoms within the cut-off as two directed edges.
Pairs are counted densely and without Python per molecule; ``size_buckets`` keeps one large molecule from
padding all the others while that is done.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def size_buckets(molecules: Molecules) -> Iterator[tuple[Tensor, Molecules]]:
    """(indices, those molecules with no more padding than they need), molecules of similar extent together.

    The extents of a bucket differ by less than a factor of two. Indices are on the CPU and ascend.
    """
    extents = last_atom(molecules)
    bucket = torch.log2(extents.clamp(min=8).double()).floor()
    for value in bucket.unique().tolist():
        index = (bucket == value).nonzero().flatten()
        yield index, trimmed(molecules[index.to(molecules.node_mask.device)], int(extents[index].max()))


def trimmed(molecules: Molecules, extent: int) -> Molecules:
    """The first ``extent`` columns; the rest must be padding."""
    return Molecules(
        molecules.positions[:, :extent], molecules.atomic_numbers[:, :extent], molecules.node_mask[:, :extent]
    )


def last_atom(molecules: Molecules) -> Tensor:
    """[B] int64 on the CPU: how many columns each molecule needs (real atoms need not come first)."""
    mask = molecules.node_mask.cpu()
    return (mask * torch.arange(1, mask.shape[1] + 1)).amax(1) if mask.numel() else mask.sum(1)


def count_edges(molecules: Molecules, cutoff: float) -> Tensor:
    """[B] int64 on the CPU: directed edges of each molecule within the cut-off (Å)."""
    counts = torch.zeros(len(molecules), dtype=torch.int64)
    for index, bucket in size_buckets(molecules):
        chunk = max(1, _CHUNK_PAIRS // max(1, bucket.node_mask.shape[1]) ** 2)
        for start in range(0, len(bucket), chunk):
            near = pairwise_distances(bucket[start : start + chunk]) < cutoff
            counts[index[start : start + chunk]] = near.sum((1, 2)).cpu()
    return counts


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
