"""How molecules are put together for the network: little padding, in pieces that stay within reach.

The network's cost goes with the square of the padded size, so molecules of about one size go together; and on
a CPU its speed falls once the features of a piece's pairs leave the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_WASTE = 0.05
"""Largest share of a batch's pairs of atoms that may be padding."""

_PAIR_FEATURES = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Pairs times hidden features in one piece, by kind of device: 2 MB of a CPU's cache, 256 MB of a GPU."""


def pair_budget(device: torch.device, hidden: int) -> int:
    """Pairs of atoms that the network should see at once."""
    return max(1, _PAIR_FEATURES[device.type] // hidden)


def size_buckets(num_atoms: Tensor, max_pairs: int, max_waste: float = MAX_WASTE) -> list[Tensor]:
    """Indices of molecules, from the largest down, in as few buckets as the limits allow.

    num_atoms: [B]. Waste is the share of a bucket's N x N pairs that is padding; max_pairs bounds a bucket's
    pairs, but one molecule may exceed it. Buckets and the order within depend on ``num_atoms`` alone.
    """
    sizes, order = num_atoms.cpu().sort(descending=True, stable=True)
    buckets: list[Tensor] = []
    for indices in order.tensor_split(_size_classes(sizes, max_waste)):
        if len(indices):
            width = int(num_atoms[indices[0]])
            pieces = -(-len(indices) * width * width // max_pairs)
            buckets.extend(indices.tensor_split(min(pieces, len(indices))))
    return buckets


def _size_classes(sizes: Tensor, max_waste: float) -> list[int]:
    """Where, in descending ``sizes``, a new class begins (the first one's beginning left out)."""
    distinct, counts = torch.unique_consecutive(sizes, return_counts=True)
    begins: list[int] = []
    width, rows, pairs, position = 0, 0, 0, 0
    for size, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        if rows and pairs + size * size * count < (1 - max_waste) * width * width * (rows + count):
            begins.append(position)
            rows = pairs = 0
        if not rows:
            width = size
        rows += count
        pairs += size * size * count
        position += count
    return begins
