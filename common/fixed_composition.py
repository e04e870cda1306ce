"""Sampling molecules of a given composition: which atom is which element is left to the policy.

At every step the predicted clean elements are moved to the nearest that add up to the composition (an
assignment of its elements to the atoms), and the step is taken as if the policy had predicted those. Elements
fixed from the start, atom by atom, serve badly: positions are decided earlier than elements while denoising,
and cannot know an element from noise.

    composition = FixedComposition(policy, [8, 6, 6, 1, 1, 1, 1])
    z_s = composition.constrain(z_t, z_s, step.z0_hat, t, s, noise)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy


class FixedComposition:
    """The elements of N atoms, for molecules without padding."""

    def __init__(self, policy: DiffusionPolicy, elements: Sequence[int]) -> None:
        """elements: N atomic numbers in any order; raises ValueError for one that the policy lacks."""
        numbers = torch.tensor([list(elements)], dtype=torch.long)
        real = torch.ones_like(numbers, dtype=torch.bool)
        molecule = Molecules(torch.zeros(*numbers.shape, 3), numbers, real)
        self._policy = policy
        self._features = policy.encode(molecule.to(next(policy.parameters()).device))[0, :, 3:]

    def nearest(self, clean: Tensor) -> Tensor:
        """Clean states [B, N, D] with the features of the composition, each atom's nearest to its own.

        Nearest is the sum over atoms of squared distances.
        """
        features = self._features.to(clean.dtype)
        costs = torch.cdist(clean[..., 3:], features.expand(len(clean), -1, -1)).square()
        costs = costs.nan_to_num()  # a state that has run away is the judges' business
        chosen = np.array([linear_sum_assignment(cost)[1] for cost in costs.cpu().numpy()], dtype=np.int64)
        order = torch.from_numpy(chosen).reshape(clean.shape[:2]).to(clean.device)
        return torch.cat([clean[..., :3], features[order]], dim=-1)

    def constrain(self, z_t: Tensor, z_s: Tensor, z0_hat: Tensor, t: int, s: int, noise: Tensor) -> Tensor:
        """z_s [B, N, D] with features drawn anew by ``noise``, from q(h_s | h_t, h_0 = composition)."""
        mu, sigma = posterior(self._policy, z_t, self.nearest(z0_hat), t, s)
        drawn = mu[..., 3:] + sigma * noise[..., 3:]
        return torch.cat([z_s[..., :3], drawn.to(z_s.dtype)], dim=-1)


def posterior(policy: DiffusionPolicy, z_t: Tensor, clean: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
    """(mu [B, N, D] float64, sigma) of q(z_s | z_t, z_0 = clean): the transition if that were predicted."""
    later, earlier = (torch.full((1,), time, device=z_t.device) for time in (t, s))
    scales, schedule = policy.schedule.scales(later, earlier), policy.schedule
    eps = (z_t.double() - schedule.alpha(later) * clean.double()) / schedule.sigma(later)
    return z_t.double() / scales.alpha_ts - scales.eps_scale * eps, scales.sigma
