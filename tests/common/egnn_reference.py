"""The published formulation of the network, written plainly: one row an edge, concatenated features.

The oracle for ``elign.common.egnn`` and the baseline of the benchmarks.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from elign.common.egnn import EGNN, EquivariantBlock, PairNetwork, radial_features
from elign.common.policy import DiffusionPolicy


class ReferencePolicy(DiffusionPolicy):
    """A policy whose network runs in the published formulation; same weights, same results."""

    def _network_in_pieces(self, h: Tensor, x: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
        return reference_forward(self.network, h, x, node_mask)


def reference_forward(network: EGNN, h: Tensor, x: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Same weights, arguments and results as ``network(h, x, node_mask)``."""
    batch, size = node_mask.shape
    rows, columns = _all_pairs(batch, size)
    flat = node_mask.flatten()
    edge_mask = (flat[rows] & flat[columns] & (rows != columns)).to(x.dtype)[:, None]
    h, x = network.embedding(h.flatten(0, 1)), x.flatten(0, 1)
    start = x
    d0 = (x[rows] - x[columns]).square().sum(1, keepdim=True)
    for block in network.blocks:
        h, x = _block(block, h, x, d0, rows, columns, edge_mask, network.normalization_factor)
    return network.embedding_out(h).view(batch, size, -1), (x - start).view(batch, size, 3)


@lru_cache(maxsize=8)
def _all_pairs(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """The edge list, padded atoms and all; kept, as the published code keeps it."""
    molecule, i, j = torch.meshgrid(*(torch.arange(n) for n in (batch, size, size)), indexing="ij")
    return (molecule * size + i).flatten(), (molecule * size + j).flatten()


def _block(
    block: EquivariantBlock,
    h: Tensor,
    x: Tensor,
    d0: Tensor,
    rows: Tensor,
    columns: Tensor,
    edge_mask: Tensor,
    factor: float,
) -> tuple[Tensor, Tensor]:
    difference = x[rows] - x[columns]
    distance = difference.square().sum(1, keepdim=True)
    edges = torch.cat(
        [distance, d0, radial_features(torch.sqrt(distance.squeeze(1) + 1e-8), block.num_radial)], dim=1
    )
    message = _pairs(block.message, h, edges, rows, columns)
    if block.attention is not None:
        message = message * torch.sigmoid(block.attention(message))
    gathered = torch.zeros_like(h).index_add(0, rows, message * edge_mask) / factor
    h = h + block.update(torch.cat([h, gathered], dim=1))
    strength = block.coordinate_out(_pairs(block.coordinate, h, edges, rows, columns))
    if block.coords_range is not None:
        strength = torch.tanh(strength) * block.coords_range
    direction = difference / (torch.sqrt(distance + 1e-8) + block.norm_constant)
    return h, x + torch.zeros_like(x).index_add(0, rows, direction * strength * edge_mask) / factor


def _pairs(pairs: PairNetwork, h: Tensor, edges: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    maps = [pairs.target, pairs.source, pairs.distance, *([pairs.radial] if pairs.radial else [])]
    weight = torch.cat([each.weight for each in maps], dim=1)
    first = F.linear(torch.cat([h[rows], h[columns], edges], dim=1), weight, pairs.target.bias)
    return F.silu(pairs.second(F.silu(first)))
