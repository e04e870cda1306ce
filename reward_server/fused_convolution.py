"""MACE's convolution without its messages, for networks whose hidden features are scalars.

mace multiplies each edge's sender features, radial weights and spherical harmonics into a message of
channels x (l_max + 1)² numbers, writes all messages, and adds them up at the receivers: on a CPU that is most
of the time, spent on memory. With scalar features the sum over a receiver's edges is a product of two small
matrices,

    A[i, c, lm] = k_l sum_e (R_l(e)[c] h_sender(e)[c]) Y_lm(e),

so no message needs to exist. mace has a hook for such a replacement (``conv_fusion``); it is used only where
the result was compared with the original one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

_PROBE_ATOMS = 7
_TOLERANCE = 1e-10  # in double precision, on numbers of order 1


class FusedConvolution(nn.Module):
    """Takes the place of ``conv_tp`` and of the sum after it. Edges must be sorted by receiver."""

    def __init__(self, coefficients: tuple[float, ...], irreps_out: Any) -> None:
        """coefficients: k_l for l = 0, 1, ... irreps_out: those of the ``conv_tp`` it replaces."""
        super().__init__()
        self.coefficients = coefficients
        self.irreps_out = irreps_out

    def forward(self, node_feats: Tensor, edge_attrs: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        """[n, C (l_max + 1)²]: for each l, channels x components.

        node_feats: [n, C]. edge_attrs: [E, (l_max + 1)²] spherical harmonics. weights: [E, (l_max + 1) C].
        edge_index: [2, E] (sender, receiver).
        """
        num_atoms, channels = node_feats.shape
        sender, receiver = edge_index
        degrees = len(self.coefficients)
        radial = (weights.view(-1, degrees, channels) * node_feats[sender].unsqueeze(1)).flatten(1)
        counts = torch.bincount(receiver, minlength=num_atoms)
        slots = max(1, int(counts.max())) if num_atoms else 1
        rank = torch.arange(len(receiver), device=receiver.device) - (counts.cumsum(0) - counts)[receiver]
        place = receiver * slots + rank
        # one product of all l with all l, of which the diagonal blocks are wanted: faster than one for each
        sums = torch.bmm(
            _spread(edge_attrs, place, num_atoms, slots).transpose(1, 2),
            _spread(radial, place, num_atoms, slots),
        )
        blocks = [
            k * sums[:, l**2 : (l + 1) ** 2, l * channels : (l + 1) * channels].transpose(1, 2).flatten(1)
            for l, k in enumerate(self.coefficients)
        ]
        return torch.cat(blocks, dim=1)


def fuse_convolutions(network: nn.Module) -> int:
    """Replace the convolutions that can be, of a MACE on the CPU; returns how many were.

    What such a network saves lacks the constants of what was replaced.
    """
    fused = 0
    for layer in cast(nn.ModuleList, network.interactions):
        block = cast(Any, layer)
        if hasattr(block, "conv_fusion") or not _is_scalar(block.conv_tp):
            continue
        replacement = _replacement(block.conv_tp)
        if replacement is not None:
            block.conv_tp, block.conv_fusion = replacement, True
            fused += 1
    return fused


def _spread(values: Tensor, place: Tensor, num_atoms: int, slots: int) -> Tensor:
    """[n, slots, f]: each edge's values at its place among its receiver's, 0 where there is none."""
    empty = values.new_zeros((num_atoms * slots, values.shape[1]))
    return empty.index_copy(0, place, values).view(num_atoms, slots, -1)


def _is_scalar(product: Any) -> bool:
    """Whether it multiplies C scalars with one spherical harmonic of each l = 0, 1, ... into C of each."""
    if not hasattr(product, "irreps_in1") or len(product.irreps_in1) != 1 or product.irreps_in1[0].ir.l != 0:
        return False
    channels = product.irreps_in1[0].mul
    degrees = [(entry.mul, entry.ir.l) for entry in product.irreps_in2]
    out = [(entry.mul, entry.ir.l) for entry in product.irreps_out]
    return degrees == [(1, l) for l in range(len(degrees))] and out == [(channels, l) for _, l in degrees]


def _replacement(product: Any) -> FusedConvolution | None:
    """One that gives what ``product`` and the sum give, None where that is not found to hold."""
    generator = torch.Generator().manual_seed(0)
    channels, size = product.irreps_in1.dim, product.irreps_in2.dim
    degrees = len(product.irreps_in2)
    dtype = next(product.buffers()).dtype
    receiver, sender = (~torch.eye(_PROBE_ATOMS, dtype=torch.bool)).nonzero(as_tuple=True)
    shapes = ((_PROBE_ATOMS, channels), (len(sender), size), (len(sender), degrees * channels))
    nodes, harmonics, weights = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)

    original = product.to(torch.float64)
    unit = original(*(torch.ones_like(a[:1]) for a in (nodes, harmonics, weights)))
    coefficients = tuple(float(unit[0, channels * l**2]) for l in range(degrees))
    fused = FusedConvolution(coefficients, product.irreps_out)
    messages = original(nodes[sender], harmonics, weights)
    product.to(dtype)
    expected = torch.zeros(_PROBE_ATOMS, messages.shape[1], dtype=torch.float64)
    expected.index_add_(0, receiver, messages)
    found = fused(nodes, harmonics, weights, torch.stack([sender, receiver]))
    agrees = found.shape == expected.shape and bool(((found - expected).abs() < _TOLERANCE).all())
    return fused if agrees else None
