"""The E(3)-equivariant graph network of EDM, dense: every pair of atoms of a molecule exchanges messages.

The first linear map of each edge network acts on [h_i, h_j, d_ij, d0_ij]; it is applied to nodes and added
over pairs: the same numbers with far fewer multiplications. Sums over neighbours are matrix products. Where
no gradient is wanted, activations overwrite what they are computed from.
Source: Satorras et al. 2021 (EGNN), Hoogeboom et al. 2022 (EDM), whose weights fit one to one; the radial
features beside the squared distances are an addition (0 of them: as published).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RADIAL_RANGE = (0.5, 4.5)
"""Å: first and last centre of the radial features, from below any bond to beyond third neighbours."""


class PairNetwork(nn.Module):
    """SiLU(W2 SiLU(W1 [h_i, h_j, d_ij, d0_ij, radial_ij] + b1) + b2) for all pairs."""

    def __init__(self, hidden: int, num_radial: int) -> None:
        super().__init__()
        self.target = nn.Linear(hidden, hidden)
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.distance = nn.Linear(2, hidden, bias=False)
        self.radial = nn.Linear(num_radial, hidden, bias=False) if num_radial else None
        self.second = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, distances: Tensor, radial: Tensor) -> Tensor:
        """h: [B, N, H]; distances: [B, N, N, 2]; radial: [B, N, N, R]; returns [B, N, N, H]."""
        overwrite = not torch.is_grad_enabled()
        nodes = (self.target(h)[:, :, None] + self.source(h)[:, None]).flatten(0, 2)
        add_product = nodes.addmm_ if overwrite else nodes.addmm
        first = add_product(distances.flatten(0, 2), self.distance.weight.t())
        if self.radial is not None:
            add_product = first.addmm_ if overwrite else first.addmm
            first = add_product(radial.flatten(0, 2), self.radial.weight.t())
        second = self.second(F.silu(first, inplace=overwrite))
        return F.silu(second, inplace=overwrite).view(*distances.shape[:3], -1)


def radial_features(distance: Tensor, num_radial: int) -> Tensor:
    """[..., R]: Gaussians of the distance ([...] in Å), centres one standard deviation apart.

    From these a linear map can tell bond lengths apart; from squared distances it hardly can.
    """
    first, last = RADIAL_RANGE
    centres = torch.linspace(first, last, num_radial, device=distance.device, dtype=distance.dtype)
    offset = distance[..., None] - centres
    return torch.exp(-0.5 * (offset * ((num_radial - 1) / (last - first))).square())


class EquivariantBlock(nn.Module):
    """One round of messages for the features, then one for the coordinates."""

    def __init__(
        self,
        hidden: int,
        *,
        attention: bool,
        coords_range: float | None,
        norm_constant: float,
        num_radial: int,
    ) -> None:
        super().__init__()
        self.coords_range = coords_range
        self.norm_constant = norm_constant
        self.num_radial = num_radial
        self.message = PairNetwork(hidden, num_radial)
        self.attention = nn.Linear(hidden, 1) if attention else None
        self.update = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.coordinate = PairNetwork(hidden, num_radial)
        self.coordinate_out = nn.Linear(hidden, 1, bias=False)
        nn.init.xavier_uniform_(self.coordinate_out.weight, gain=0.001)

    def forward(self, h: Tensor, x: Tensor, d0: Tensor, pair_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Features and what to add to the coordinates.

        h: [B, N, H]; x: [B, N, 3]; d0: [B, N, N] squared distances at first; pair_weight: [B, N, N].
        """
        difference = x[:, :, None] - x[:, None]
        squared = difference.square().sum(-1)
        distances = torch.stack([squared, d0], dim=-1)
        distance = torch.sqrt(squared + 1e-8)
        radial = radial_features(distance, self.num_radial)

        message = self.message(h, distances, radial)
        weight = pair_weight
        if self.attention is not None:
            weight = weight * torch.sigmoid(self.attention(message)).squeeze(-1)
        gathered = (weight[:, :, None] @ message).squeeze(2)
        h = h + self.update(torch.cat([h, gathered], dim=-1))

        strength = self.coordinate_out(self.coordinate(h, distances, radial)).squeeze(-1)
        if self.coords_range is not None:
            strength = torch.tanh(strength) * self.coords_range
        strength = strength * pair_weight / (distance + self.norm_constant)
        return h, (strength[..., None] * difference).sum(2)


class EGNN(nn.Module):
    """Features [B, N, in] and coordinates [B, N, 3] to features [B, N, out] and moves [B, N, 3]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int,
        num_layers: int,
        attention: bool = True,
        coords_range: float | None = 15.0,
        norm_constant: float = 1.0,
        normalization_factor: float = 1.0,
        num_radial: int = 0,
    ) -> None:
        super().__init__()
        self.normalization_factor = normalization_factor
        self.embedding = nn.Linear(in_features, hidden)
        self.embedding_out = nn.Linear(hidden, out_features)
        self.blocks = nn.ModuleList(
            EquivariantBlock(
                hidden,
                attention=attention,
                coords_range=coords_range,
                norm_constant=norm_constant,
                num_radial=num_radial,
            )
            for _ in range(num_layers)
        )

    def forward(self, h: Tensor, x: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
        """node_mask: [B, N] bool. What stands at padded atoms of the result means nothing.

        The moves are summed by themselves: as a difference of coordinates they would lose digits.
        """
        real = node_mask.to(x.dtype)
        others = 1.0 - torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
        pair_weight = real[:, :, None] * real[:, None] * others / self.normalization_factor
        d0 = (x[:, :, None] - x[:, None]).square().sum(-1)
        h, moves = self.embedding(h), torch.zeros_like(x)
        for block in self.blocks:
            h, move = block(h, x + moves, d0, pair_weight)
            moves = moves + move
        return self.embedding_out(h), moves
