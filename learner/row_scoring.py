"""Log-probabilities (and KL to the reference) of rows under a policy, in chunks of about equal molecules.

The cost of the network goes with the square of the padded size, so a minibatch that mixes molecules of 9 and
29 atoms is split by size and each part trimmed; and a chunk is small enough that its activations stay in
reach. Values do not depend on the split beyond float32 noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from elign.common.policy import DiffusionPolicy
from elign.learner.loss import gaussian_kl
from elign.learner.transitions import CONTEXT, NODE_MASK, Z_S, Z_T, S, T

MAX_WASTE = 0.12
MAX_PAIRS = {"cpu": 8_192, "cuda": 1_048_576}
"""Pairs of atoms in one chunk, by kind of device: on a CPU larger ones are slower and need gigabytes."""


class RowScores(NamedTuple):
    """log_prob [B] float64, with gradient; kl [B] to the reference, None without one."""

    log_prob: Tensor
    kl: Tensor | None


def split_rows(rows: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The rows of a minibatch as chunks of one size class each, trimmed to their largest molecule."""
    device = rows[T].device
    buckets = size_buckets(rows[NODE_MASK].sum(1), MAX_PAIRS[device.type])
    return [_take(rows, bucket.to(device)) for bucket in buckets]


def size_buckets(num_atoms: Tensor, max_pairs: int, max_waste: float = MAX_WASTE) -> list[Tensor]:
    """Indices of rows, from the largest molecules down, in as few buckets as the limits allow.

    num_atoms: [B]. Waste is the share of a bucket's N x N pairs that is padding; max_pairs bounds a bucket's
    pairs. Buckets and the order within depend on ``num_atoms`` alone.
    """
    sizes, order = num_atoms.cpu().sort(descending=True, stable=True)
    buckets: list[Tensor] = []
    for indices in order.tensor_split(_size_classes(sizes, max_waste)):
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


def _take(rows: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    width = int(rows[NODE_MASK][index].sum(1).max())
    wide = (Z_T, Z_S, NODE_MASK)
    return {name: rows[name][index][:, :width] if name in wide else rows[name][index] for name in rows}


def score_rows(
    policy: DiffusionPolicy, rows: Mapping[str, Tensor], reference: DiffusionPolicy | None = None
) -> RowScores:
    """Scores of B rows (columns as in ``transitions.Rows``, as tensors on the policy's device)."""
    mask, context = rows[NODE_MASK], rows.get(CONTEXT)
    step = policy.transition(rows[Z_T], rows[T], rows[S], mask, context)
    log_prob = policy.log_prob(rows[Z_S], step.mu, step.sigma, mask)
    if reference is None:
        return RowScores(log_prob, None)
    with torch.no_grad():
        anchor = reference.transition(rows[Z_T], rows[T], rows[S], mask, context)
    return RowScores(log_prob, gaussian_kl(step.mu, anchor.mu, step.sigma, mask))
