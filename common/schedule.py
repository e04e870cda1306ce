"""The noise schedule ``polynomial_2`` and the transition from any time t to any earlier time s.

gamma(t) = -log SNR(t); alpha² = sigmoid(-gamma), sigma² = sigmoid(gamma). Times are integers 0..T.
Source: EDM (Hoogeboom et al. 2022), appendix; transition: DDPM posterior as in DESIGN of EDM's equation 10.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def polynomial_gamma(num_timesteps: int, power: float, precision: float) -> np.ndarray:
    """[T+1] float64: gamma of alpha² = (1 - (t/T)^power)², kept away from 0 and 1 by ``precision``."""
    steps = num_timesteps + 1
    grid = np.linspace(0.0, steps, steps)
    alphas2 = (1.0 - (grid / steps) ** power) ** 2
    ratios = np.clip(alphas2 / np.concatenate([[1.0], alphas2[:-1]]), 0.001, 1.0)
    alphas2 = (1.0 - 2.0 * precision) * np.cumprod(ratios) + precision
    return np.asarray(np.log1p(-alphas2) - np.log(alphas2))


class TransitionScales(NamedTuple):
    """Scalars of z_s = mu + sigma·noise with mu = z_t / alpha_ts - eps_scale · eps; each [B], float64."""

    alpha_ts: Tensor
    eps_scale: Tensor
    sigma: Tensor


class NoiseSchedule(nn.Module):
    """Table of gamma and what follows from it; no trained weights."""

    gamma: Tensor

    def __init__(self, num_timesteps: int = 1000, power: float = 2.0, precision: float = 1e-5) -> None:
        super().__init__()
        gamma = torch.from_numpy(polynomial_gamma(num_timesteps, power, precision)).float()
        self.register_buffer("gamma", gamma, persistent=False)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self.gamma[t]).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.gamma[t]).sqrt()

    def scales(self, t: Tensor, s: Tensor) -> TransitionScales:
        """For times t > s, [B] int64: alpha_ts, sigma²_ts/(alpha_ts sigma_t) and sigma_ts sigma_s/sigma_t."""
        gamma_t, gamma_s = self.gamma[t].double(), self.gamma[s].double()
        difference = F.softplus(gamma_s) - F.softplus(gamma_t)
        alpha_ts, sigma2_ts = torch.exp(0.5 * difference), -torch.expm1(difference)
        sigma_t, sigma_s = torch.sigmoid(gamma_t).sqrt(), torch.sigmoid(gamma_s).sqrt()
        return TransitionScales(
            alpha_ts, sigma2_ts / (alpha_ts * sigma_t), sigma2_ts.sqrt() * sigma_s / sigma_t
        )
