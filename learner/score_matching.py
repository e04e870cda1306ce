"""The pre-training loss and the batches it is computed on.

    loss = mean over molecules and degrees of freedom of |eps - eps_hat(alpha_t z_0 + sigma_t eps, t)|²

(EDM's simple L2 objective, arXiv 2203.17003 equation 17), with times stratified over the batch, which lowers
the variance of the gradient without changing its mean.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, project


def noise_loss(
    policy: DiffusionPolicy,
    z0: Tensor,
    t: Tensor,
    noise: Tensor,
    node_mask: Tensor,
    context: Tensor | None = None,
) -> Tensor:
    """[B] squared error of the predicted noise, per degree of freedom; noise [B, N, D] is projected here."""
    noise = project(noise, node_mask)
    schedule = policy.schedule
    z_t = schedule.alpha(t)[:, None, None] * z0 + schedule.sigma(t)[:, None, None] * noise
    error = (policy.eps(z_t, t, node_mask, context) - noise).square().sum((1, 2))
    return error / (node_mask.sum(1) * policy.state_dim)


def stratified_times(count: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """[count] int64 in 0..T, one in each of ``count`` equal parts, in random order."""
    parts = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (parts * (num_timesteps + 1)).long()[torch.randperm(count, generator=generator)]


def epoch_batches(
    num_atoms: Tensor, batch_size: int, seed: int, epoch: int, window: int = 16
) -> list[Tensor]:
    """Index batches of one pass over the data, in random order; molecules of similar size share a batch.

    ``window`` batches are drawn at random and sorted by size among themselves, so little is padded.
    """
    generator = torch.Generator().manual_seed(_seed(seed, epoch))
    order = torch.randperm(len(num_atoms), generator=generator)
    order = order[: len(order) // batch_size * batch_size] if len(order) >= batch_size else order
    batches: list[Tensor] = []
    for part in order.split(batch_size * window):
        batches.extend(part[torch.argsort(num_atoms[part], stable=True)].split(batch_size))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def trimmed(molecules: Molecules, index: Tensor) -> Molecules:
    """The chosen molecules, padded to the largest among them."""
    chosen = molecules[index]
    size = int(chosen.num_atoms.max())
    return Molecules(chosen.positions[:, :size], chosen.atomic_numbers[:, :size], chosen.node_mask[:, :size])


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """[count, 3, 3] uniformly random orthogonal matrices."""
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    signs: Tensor = torch.sign(torch.diagonal(r, dim1=1, dim2=2))
    rotations: Tensor = q * signs[:, None]
    return rotations


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one training step: a resumed run draws what an uninterrupted one would."""
    return torch.Generator().manual_seed(_seed(seed, 1 << 32, step))


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
