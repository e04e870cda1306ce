"""``DiffusionPolicy``: the denoising network together with its noise schedule and feature layout.

A state z = [x, onehot(type)/4, charge/10] has width D = 3 + F; x lies in the subspace of zero centre of mass.
Sampling, behaviour, current and reference log-probabilities all come from ``transition``, so actor and
learner cannot disagree.

    step = policy.transition(z_t, t, s, node_mask)       # any t > s
    z_s = step.mu + step.sigma[:, None, None] * centred_noise(...)
    log_prob = policy.log_prob(z_s, step.mu, step.sigma, node_mask)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from elign.common.batching import pair_budget
from elign.common.config import Settings
from elign.common.datasets import get_dataset
from elign.common.egnn import EGNN
from elign.common.molecules import Molecules
from elign.common.schedule import NoiseSchedule


class PolicySpec(Settings):
    """All that is needed to build the network; ``policy.json`` of a checkpoint holds it."""

    dataset: str = Field("qm9", description="Atom types and charges: qm9 or geom")
    hidden: int = Field(64, ge=1)
    num_layers: int = Field(6, ge=1)
    attention: bool = True
    coords_range: float | None = Field(
        15.0, description="Bound of a layer's coordinate moves by tanh; None: no bound"
    )
    norm_constant: float = 1.0
    num_radial: int = Field(
        0, ge=0, description="Radial features of a pair beside its squared distances; 0: published EDM"
    )
    normalization_factor: float = Field(1.0, gt=0)
    num_timesteps: int = Field(1000, ge=1)
    noise_power: float = Field(2.0, gt=0)
    noise_precision: float = Field(1e-5, gt=0)
    position_scale: float = Field(1.0, gt=0)
    type_scale: float = Field(4.0, gt=0)
    charge_scale: float = Field(10.0, gt=0)
    includes_charges: bool = True
    conditioning: tuple[str, ...] = Field(
        (), description="Properties the policy is conditioned on, normalized"
    )
    size_histogram: dict[int, int] = Field(
        default_factory=dict, description="Atoms -> count in the training data"
    )


class Transition(NamedTuple):
    """p(z_s | z_t): mu [B, N, D], sigma [B], float64; z0_hat [B, N, D], the clean state predicted from z_t.

    In float64 because of small sigma: what float32 rounds off a coordinate is, in units of sigma, more than a
    ratio of probabilities may be wrong by. The network itself runs in the dtype of z.
    """

    mu: Tensor
    sigma: Tensor
    z0_hat: Tensor


def centre(x: Tensor, node_mask: Tensor) -> Tensor:
    """x [B, N, 3] moved to zero centre of mass over real atoms; 0 where padded."""
    real = node_mask[..., None].to(x.dtype)
    x = x * real
    return (x - x.sum(1, keepdim=True) / real.sum(1, keepdim=True)) * real


def project(z: Tensor, node_mask: Tensor) -> Tensor:
    """z [B, N, D] with centred positions and zeros where padded."""
    return torch.cat([centre(z[..., :3], node_mask), z[..., 3:] * node_mask[..., None].to(z.dtype)], dim=-1)


class DiffusionPolicy(nn.Module):
    """An EDM-type diffusion model of molecules, see the module's text."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        self.atom_types = get_dataset(spec.dataset).atomic_numbers
        self.num_features = len(self.atom_types) + int(spec.includes_charges)
        self.state_dim = 3 + self.num_features
        self.schedule = NoiseSchedule(spec.num_timesteps, spec.noise_power, spec.noise_precision)
        self.register_buffer("type_numbers", torch.tensor(self.atom_types), persistent=False)
        limits = [2 / spec.type_scale] * len(self.atom_types)
        if spec.includes_charges:
            limits.append(2 * max(self.atom_types) / spec.charge_scale)
        self.register_buffer("feature_limits", torch.tensor(limits), persistent=False)
        inputs = self.num_features + 1 + len(spec.conditioning)
        self.network = EGNN(
            inputs,
            inputs,
            hidden=spec.hidden,
            num_layers=spec.num_layers,
            attention=spec.attention,
            coords_range=spec.coords_range,
            norm_constant=spec.norm_constant,
            num_radial=spec.num_radial,
            normalization_factor=spec.normalization_factor,
        )

    type_numbers: Tensor
    feature_limits: Tensor

    @property
    def num_timesteps(self) -> int:
        return self.spec.num_timesteps

    def eps(self, z: Tensor, t: Tensor, node_mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Predicted noise [B, N, D] of z [B, N, D] at times t [B]; context [B, C] where conditional."""
        if (context is None) != (not self.spec.conditioning):
            raise ValueError(f"this policy is conditioned on {self.spec.conditioning or 'nothing'}")
        time = (t.to(z.dtype) / self.num_timesteps)[:, None, None].expand(-1, z.shape[1], 1)
        features = [z[..., 3:], time]
        if context is not None:
            features.append(context[:, None].expand(-1, z.shape[1], -1).to(z.dtype))
        h, moves = self._network_in_pieces(torch.cat(features, dim=-1), z[..., :3], node_mask)
        return project(torch.cat([moves, h[..., : self.num_features]], dim=-1), node_mask)

    def _network_in_pieces(self, h: Tensor, x: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The network on as many molecules at once as suits the device; whole where a gradient is wanted."""
        network: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = self.network
        if torch.is_grad_enabled():
            return network(h, x, node_mask)
        size = max(1, pair_budget(x.device, self.spec.hidden) // x.shape[1] ** 2)
        pieces = zip(h.split(size), x.split(size), node_mask.split(size), strict=True)
        features, moves = zip(*(network(*piece) for piece in pieces), strict=True)
        return torch.cat(features), torch.cat(moves)

    def transition(
        self, z_t: Tensor, t: Tensor, s: Tensor, node_mask: Tensor, context: Tensor | None = None
    ) -> Transition:
        """p(z_s | z_t) for integer times t > s, each [B] (EDM equation 10, any stride)."""
        eps, z0_hat = self._predict(z_t, t, node_mask, context)
        scales = self.schedule.scales(t, s)
        mu = z_t.double() / _wide(scales.alpha_ts) - _wide(scales.eps_scale) * eps.double()
        return Transition(mu, scales.sigma, z0_hat)

    def predict_clean(
        self, z_t: Tensor, t: Tensor, node_mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """z0_hat = (z_t - sigma_t eps) / alpha_t, [B, N, D], bounded; see ``_bound``."""
        return self._predict(z_t, t, node_mask, context)[1]

    def _predict(
        self, z_t: Tensor, t: Tensor, node_mask: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The noise and the clean state z0_hat that it leaves, both [B, N, D], z0_hat bounded."""
        eps = self.eps(z_t, t, node_mask, context)
        alpha, sigma = _wide(self.schedule.alpha(t)), _wide(self.schedule.sigma(t))
        clean = (z_t - sigma * eps) / alpha
        z0_hat = self._bound(clean, node_mask)
        return eps + alpha / sigma * (clean - z0_hat), z0_hat

    def _bound(self, clean: Tensor, node_mask: Tensor) -> Tensor:
        """clean [B, N, D] where molecules can be; unchanged, to the bit, unless it is far from that.

        What is predicted is a mean over molecules, so it lies among them. Near t = T, where alpha is small, a
        slight error of the noise would throw it hundreds of Å out, and states of the next steps with it.
        Bonds are shorter than 2 Å, so no atom of a connected molecule of N atoms is N Å from their centre:
        the whole is shrunk to that. Features may reach twice those of any atom.
        """
        # products and sums of pairs alone: equal states give equal bits wherever they stand in the batch
        x, y, z = clean[..., :3].square().unbind(-1)
        limit = node_mask.sum(1).to(clean) / self.spec.position_scale
        radius = torch.maximum((x + y + z).amax(1), limit.square()).sqrt()
        features = clean[..., 3:].clamp(-self.feature_limits, self.feature_limits)
        return torch.cat([clean[..., :3] * _wide(limit / radius), features], dim=-1)

    def log_prob(
        self, z_s: Tensor, mu: Tensor, sigma: Tensor, node_mask: Tensor, *, positions_only: bool = False
    ) -> Tensor:
        """[B] float64, log N(z_s; mu, sigma) summed over 3(N-1) + N F real degrees of freedom.

        positions_only: over the first 3(N-1), where the features were not the policy's to choose.
        """
        width = 3 if positions_only else self.state_dim
        moved = z_s[..., :width].double() - mu[..., :width].double()
        whitened = moved / _wide(sigma) * node_mask[..., None]
        num_atoms = node_mask.sum(1)
        freedom = 3 * (num_atoms - 1) + num_atoms * (width - 3)
        normalizer = freedom * (sigma.double().log() + 0.5 * math.log(2 * math.pi))
        return -0.5 * whitened.square().sum((1, 2)) - normalizer

    def decode(self, z0: Tensor, node_mask: Tensor) -> Molecules:
        """Clean states to molecules: positions in Å, element of the largest type feature."""
        positions = z0[..., :3] * self.spec.position_scale * node_mask[..., None]
        types = z0[..., 3 : 3 + len(self.atom_types)].argmax(-1)
        return Molecules(positions, self.type_numbers[types] * node_mask, node_mask)

    def encode(self, molecules: Molecules) -> Tensor:
        """Molecules to clean states [B, N, D], centred: undoes ``decode``. ValueError on foreign elements."""
        one_hot = (molecules.atomic_numbers[..., None] == self.type_numbers) & molecules.node_mask[..., None]
        if not bool((one_hot.any(-1) == molecules.node_mask).all()):
            foreign = sorted(
                set(molecules.atomic_numbers[molecules.node_mask].tolist()) - set(self.atom_types)
            )
            raise ValueError(f"atomic numbers {foreign} are not among this policy's {self.atom_types}")
        features = [molecules.positions / self.spec.position_scale, one_hot / self.spec.type_scale]
        if self.spec.includes_charges:
            features.append(molecules.atomic_numbers[..., None] / self.spec.charge_scale)
        return project(
            torch.cat([f.to(molecules.positions.dtype) for f in features], -1), molecules.node_mask
        )


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]
