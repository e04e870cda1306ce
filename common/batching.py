"""How molecules are put together for the network: little padding, in pieces that stay within reach.

The network's cost goes with the square of the padded size, so molecules of about one size go together; but
each call has a cost of its own, so a few molecules of different sizes share one. On a CPU the network's speed
falls once the features of a piece's pairs leave the cache.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

_PAIR_FEATURES = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Pairs times hidden features in one piece, by kind of device: 2 MB of a CPU's cache, 256 MB of a GPU."""

_CALL_COST = 16
"""What a call costs beside its arithmetic: this part of what a full piece costs (measured on a CPU)."""


def pair_budget(device: torch.device, hidden: int) -> int:
    """Pairs of atoms that the network should see at once."""
    return max(1, _PAIR_FEATURES[device.type] // hidden)


def size_buckets(num_atoms: Tensor, max_pairs: int) -> list[Tensor]:
    """Indices of molecules, from the largest down, so that padded pairs and calls together cost least.

    num_atoms: [B]. max_pairs bounds the N x N pairs of a bucket, but one molecule may exceed it. Buckets and
    the order within depend on ``num_atoms`` alone.
    """
    sizes, order = num_atoms.cpu().sort(descending=True, stable=True)
    buckets: list[Tensor] = []
    for indices in order.tensor_split(_class_begins(sizes, max_pairs)):
        if len(indices):
            pieces = _pieces(int(num_atoms[indices[0]]), len(indices), max_pairs)
            buckets.extend(indices.tensor_split(min(pieces, len(indices))))
    return buckets


def _class_begins(sizes: Tensor, max_pairs: int) -> list[int]:
    """Where, in descending ``sizes``, a new size class begins (the first one's beginning left out).

    The best classes of the first j distinct sizes are the best of the first i, for some i < j, and one more.
    """
    distinct, counts = torch.unique_consecutive(sizes, return_counts=True)
    widths = distinct.tolist()
    ends = [0, *accumulate(counts.tolist())]
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j in range(1, len(widths) + 1):
        choices = [
            (best[i][0] + _cost(widths[i], ends[j] - ends[i], max_pairs), [*best[i][1], ends[i]])
            for i in range(j)
        ]
        best.append(min(choices, key=lambda choice: choice[0]))
    return best[-1][1][1:]


def _cost(width: int, count: int, max_pairs: int) -> float:
    """Of ``count`` molecules padded to ``width``, in pairs of atoms."""
    return width * width * count + _pieces(width, count, max_pairs) * max_pairs / _CALL_COST


def _pieces(width: int, count: int, max_pairs: int) -> int:
    return -(-count * width * width // max_pairs)
