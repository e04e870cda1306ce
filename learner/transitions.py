"""Scored trajectories become rows: one row is one denoising step z_t -> z_s of one sample with its advantage.

Rows are flat and padded to one width, because RLlib slices minibatches along the first dimension;
``split_rows`` trims them again, so the network never runs on padding worth mentioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from elign.common.rollout import ScoredTrajectory
from elign.learner.advantages import Advantages

Z_T, Z_S, T, S = "z_t", "z_s", "t", "s"
NODE_MASK, CONTEXT = "node_mask", "context"
LOG_PROB_BEHAVIOUR, ADVANTAGE = "log_prob_behaviour", "advantage"
STEP, GROUP_ID, ROW, WEIGHT, STALE = "step", "group_id", "row", "weight", "stale"

Rows = dict[str, np.ndarray]
"""Columns of R rows, padded to N atoms: z_t, z_s [R, N, D] float32; t, s, step, group_id, row [R] int64;
node_mask [R, N], stale [R] bool; log_prob_behaviour [R] int64, see ``float64_bits``; advantage, weight [R]
float32; context [R, 1] float32 where conditional.
step: the transition's place after the branch. row: its number. weight: see ``MinibatchLayout``. stale: an
older policy sampled it than the one that learns from it."""


def build_rows(
    scored: Sequence[ScoredTrajectory],
    advantages: Sequence[Advantages],
    trained: Sequence[np.ndarray],
    policy_version: int,
) -> Rows:
    """Rows of the valid transitions that ``trained`` [T'] bool keeps, ordered by group, step, sample.

    One entry a group in each of the first three arguments; policy_version: of the policy that is to learn.
    The order depends on the group ids alone, not on which actor answered first.
    """
    order = sorted(range(len(scored)), key=lambda i: scored[i].trajectory.plan.group_id)
    num_atoms = max(s.trajectory.plan.num_atoms for s in scored)
    parts = [_group_rows(scored[i], advantages[i], trained[i], num_atoms, policy_version) for i in order]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {**rows, ROW: np.arange(len(rows[T]))}


def choose_steps(
    num_steps: int, *, skip_last: int, wanted: int | None, rng: np.random.Generator
) -> np.ndarray:
    """[num_steps] bool: the transitions of one group to train on; never the last ``skip_last``.

    wanted: how many of the others, drawn uniformly, so that the mean over them is an unbiased estimate of the
    mean over all; None takes all.
    """
    chosen = np.arange(max(num_steps - skip_last, 0))
    if wanted is not None and wanted < len(chosen):
        chosen = rng.choice(chosen, size=wanted, replace=False)
    trained = np.zeros(num_steps, dtype=bool)
    trained[chosen] = True
    return trained


def _group_rows(
    scored: ScoredTrajectory,
    advantages: Advantages,
    trained: np.ndarray,
    num_atoms: int,
    policy_version: int,
) -> Rows:
    trajectory = scored.trajectory
    keep = advantages.valid & torch.from_numpy(trained)[:, None]
    step, sample = keep.nonzero(as_tuple=True)
    times = torch.tensor(trajectory.times)
    rows = {
        Z_T: _pad(trajectory.z[step, sample].numpy(), num_atoms),
        Z_S: _pad(trajectory.z[step + 1, sample].numpy(), num_atoms),
        T: times[step].numpy(),
        S: times[step + 1].numpy(),
        NODE_MASK: np.broadcast_to(np.arange(num_atoms) < trajectory.plan.num_atoms, (len(step), num_atoms)),
        LOG_PROB_BEHAVIOUR: float64_bits(trajectory.log_prob[step, sample]),
        ADVANTAGE: advantages.values[step, sample].numpy(),
        STEP: step.numpy(),
        GROUP_ID: np.full(len(step), trajectory.plan.group_id, dtype=np.int64),
        WEIGHT: np.ones(len(step), dtype=np.float32),
        STALE: np.full(len(step), trajectory.policy_version < policy_version),
    }
    if trajectory.plan.context is not None:
        rows[CONTEXT] = np.full((len(step), 1), trajectory.plan.context, dtype=np.float32)
    return rows


def float64_bits(values: torch.Tensor) -> np.ndarray:
    """The bits of float64 numbers as int64: RLlib rounds float64 columns to float32, but leaves integers."""
    return values.double().numpy().view(np.int64)


def from_float64_bits(bits: torch.Tensor) -> torch.Tensor:
    """The float64 numbers that ``float64_bits`` packed."""
    return bits.view(torch.float64)


def _pad(z: np.ndarray, num_atoms: int) -> np.ndarray:
    return np.pad(z, ((0, 0), (0, num_atoms - z.shape[1]), (0, 0)))


def num_rows(rows: Rows) -> int:
    return len(rows[T])


def rows_by_size(rows: Rows) -> dict[int, int]:
    """Number of atoms -> rows of that size."""
    sizes, counts = np.unique(rows[NODE_MASK].sum(1), return_counts=True)
    return {int(size): int(count) for size, count in zip(sizes, counts, strict=True)}


@dataclass(frozen=True)
class MinibatchLayout:
    """Shuffled rows, cut so that every learner gets the same number of equally long minibatches.

    rows: learner after learner, each its minibatches one after the other. Filling rows repeat a real one with
    weight 0. Weighted sums over a minibatch, averaged over the learners, are means over its real rows but for
    rounding of the cut: every real row counts the same in the whole epoch.
    """

    rows: Rows
    rows_per_minibatch: int
    minibatches_per_learner: int


def lay_out_minibatches(
    rows: Rows, *, num_learners: int, minibatch_size: int, rng: np.random.Generator
) -> MinibatchLayout:
    """Shuffle and cut; minibatch_size: about how many rows an optimizer step sees, over all learners."""
    total = num_rows(rows)
    minibatches = max(-(-total // minibatch_size), 1)
    shards = [
        shard
        for minibatch in np.array_split(rng.permutation(total), minibatches)
        for shard in np.array_split(minibatch, num_learners)
    ]
    length = max(len(shard) for shard in shards)
    by_learner = [shards[m * num_learners + k] for k in range(num_learners) for m in range(minibatches)]
    # a shard of a tiny batch may be empty; it then fills itself with row 0
    filled = [np.concatenate([shard, np.resize(shard if len(shard) else [0], length - len(shard))])
              for shard in by_learner]  # fmt: skip
    index = np.concatenate(filled).astype(np.int64)
    real = np.concatenate([np.arange(length) < len(shard) for shard in by_learner])
    laid_out = {name: np.ascontiguousarray(column[index]) for name, column in rows.items()}
    laid_out[WEIGHT] = (real * (minibatches * num_learners / total)).astype(np.float32)
    return MinibatchLayout(laid_out, length, minibatches)
