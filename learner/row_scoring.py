"""Log-probabilities (and KL to the reference) of rows under a policy, in chunks of about equal molecules.

The cost of the network goes with the square of the padded size, so a minibatch that mixes molecules of 9 and
29 atoms is split by size and each part trimmed; and a chunk is small enough that its activations stay in
reach. Values do not depend on the split beyond float32 noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from elign.common.batching import size_buckets
from elign.common.policy import DiffusionPolicy
from elign.learner.loss import gaussian_kl
from elign.learner.transitions import CONTEXT, NODE_MASK, Z_S, Z_T, S, T


class RowScores(NamedTuple):
    """log_prob [B] float64, with gradient; kl [B] to the reference, None without one."""

    log_prob: Tensor
    kl: Tensor | None


def split_rows(rows: Mapping[str, Tensor], max_pairs: int) -> list[dict[str, Tensor]]:
    """The rows of a minibatch as chunks of one size class each, trimmed to their largest molecule."""
    buckets = size_buckets(rows[NODE_MASK].sum(1), max_pairs)
    return [_take(rows, bucket.to(rows[T].device)) for bucket in buckets]


def _take(rows: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    width = int(rows[NODE_MASK][index].sum(1).max())
    wide = (Z_T, Z_S, NODE_MASK)
    return {name: rows[name][index][:, :width] if name in wide else rows[name][index] for name in rows}


def score_rows(
    policy: DiffusionPolicy,
    rows: Mapping[str, Tensor],
    mu_reference: Tensor | None = None,
    *,
    positions_only: bool = False,
) -> RowScores:
    """Scores of B rows (columns as in ``transitions.Rows``, as tensors on the policy's device).

    mu_reference: [B, N, D] means of the reference policy's transitions, for the KL. positions_only: see
    ``DiffusionPolicy.log_prob``.
    """
    mask = rows[NODE_MASK]
    step = policy.transition(rows[Z_T], rows[T], rows[S], mask, rows.get(CONTEXT))
    log_prob = policy.log_prob(rows[Z_S], step.mu, step.sigma, mask, positions_only=positions_only)
    if mu_reference is None:
        return RowScores(log_prob, None)
    width = 3 if positions_only else mu_reference.shape[-1]
    kl = gaussian_kl(step.mu[..., :width], mu_reference[..., :width], step.sigma, mask)
    return RowScores(log_prob, kl)
