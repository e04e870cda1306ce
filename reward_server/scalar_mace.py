"""A MACE with scalar hidden features made fast for inference on a CPU, in float32.

Of each layer the convolution becomes a compiled loop with tabulated radial weights (``edge_kernels``); the
linear map behind it works on [(l_max + 1)², n, C], where it is one product of matrices for each l; and the
symmetric contraction, where it is of second order, its closed form

    B[i, c] = w1[z_i, c] A[i, 00, c] + sum_l w2_l[z_i, c] sum_m A[i, lm, c]².

What the maps do is read off the layers by feeding them unit vectors, not from how mace stores it; and the
result is used only where energies and forces of probes equal those of the original network.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from elign.reward_server.edge_kernels import EdgeSum, RadialTable
from elign.reward_server.fused_convolution import FusedConvolution
from elign.reward_server.probes import says_the_same

GRID = 1024
"""Intervals of the radial tables, from 0 to the cut-off."""
EDGES_PER_BATCH = 24_000
"""No message is written, so that a batch may be larger than ``budget.CPU_MESSAGE_BYTES`` says. A fixed
number, for the reason given there."""
_NEAR_ZERO = 1e-4
"""Å: where a table's first row is taken, as sin(x)/x has no value at 0."""


def speed_up(network: nn.Module) -> nn.Module:
    """The network made fast, or ``network`` itself where that cannot be or would change what it says.

    network: on the CPU, its convolutions fused.
    """
    model = cast(Any, network)
    by_element = hasattr(model.radial_embedding, "distance_transform")
    late_cutoff = not getattr(model.radial_embedding, "apply_cutoff", True)
    fused = all(isinstance(layer.conv_tp, FusedConvolution) for layer in model.interactions)
    if by_element or late_cutoff or not fused or next(network.parameters()).dtype != torch.float32:
        return network
    fast = cast(Any, copy.deepcopy(network))
    for layer, product in zip(fast.interactions, fast.products, strict=True):
        _replace(layer, product, model.radial_embedding, float(model.r_max))
    fast.radial_embedding, fast.edges_per_batch = _Lengths(), EDGES_PER_BATCH
    return cast(nn.Module, fast) if says_the_same(fast, network) else network


@torch.no_grad()
def _replace(layer: Any, product: Any, embedding: nn.Module, cutoff: float) -> None:
    """The parts of one layer, in place."""
    scales = layer.conv_tp.coefficients
    rows = radial_rows(embedding, layer.conv_tp_weights, cutoff)
    channels = rows.shape[2] // len(scales)
    table = RadialTable(rows, cutoff / GRID, np.array(scales, dtype=np.float32))
    layer.conv_tp_weights, layer.conv_tp = nn.Identity(), _Convolution(table)
    layer.linear = _LinearByDegree(layer.linear, channels, len(scales))
    contraction = product.symmetric_contractions
    num_elements = layer.node_attrs_irreps.dim
    closed = _ClosedContraction(contraction, num_elements, channels, len(scales))
    probe = torch.randn(len(scales) ** 2, 4, channels, generator=torch.Generator().manual_seed(0))
    elements = torch.eye(num_elements)[torch.arange(4) % num_elements]
    expected = contraction(_ChannelsFirst()(probe), elements)
    if torch.allclose(closed(probe, elements), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
        layer.reshape, product.symmetric_contractions = nn.Identity(), closed
    else:
        layer.reshape = _ChannelsFirst()


@torch.enable_grad()  # type: ignore[untyped-decorator]
def radial_rows(embedding: nn.Module, weights: nn.Module, cutoff: float) -> np.ndarray:
    """[GRID + 1, 3, W] float32: W radial weights and their first two derivatives (1/Å, 1/Å²), by float64."""
    embedding, weights = copy.deepcopy(embedding).double(), copy.deepcopy(weights).double()
    nothing = torch.empty(0)

    def values(lengths: Tensor) -> Tensor:
        made: Tensor = weights(embedding(lengths, nothing, nothing, nothing)[0])
        return made

    def slopes(lengths: Tensor) -> Tensor:
        slope: Tensor = torch.func.jvp(values, (lengths,), (torch.ones_like(lengths),))[1]
        return slope

    grid = torch.linspace(0, cutoff, GRID + 1, dtype=torch.float64).clamp(min=_NEAR_ZERO)[:, None]
    ones = torch.ones_like(grid)
    rows = torch.stack([values(grid), *torch.func.jvp(slopes, (grid,), (ones,))[:2]], dim=1)
    array: np.ndarray = rows.detach().float().contiguous().numpy()
    return array


class _Lengths(nn.Module):
    """In place of the radial embedding: the edges' lengths [E, 1] themselves."""

    def forward(self, lengths: Tensor, *_: Any) -> tuple[Tensor, None]:
        return lengths, None


class _Convolution(nn.Module):
    def __init__(self, table: RadialTable) -> None:
        super().__init__()
        self._table = table

    def forward(self, nodes: Tensor, harmonics: Tensor, lengths: Tensor, edge_index: Tensor) -> Tensor:
        summed: Tensor = EdgeSum.apply(nodes, harmonics, lengths, edge_index, self._table)  # type: ignore[no-untyped-call]
        return summed


class _LinearByDegree(nn.Module):
    """[(l_max + 1)², n, C] -> the same shape, one matrix for each l."""

    def __init__(self, linear: nn.Module, channels: int, degrees: int) -> None:
        super().__init__()
        self.slices = [slice(l * l, (l + 1) ** 2) for l in range(degrees)]
        matrices = []
        for l in range(degrees):
            width, first = 2 * l + 1, channels * l * l
            unit = torch.zeros(channels, channels * degrees**2)
            place = first + width * torch.arange(channels)
            unit[torch.arange(channels), place] = 1.0
            matrices.append(linear(unit)[:, place])
        self.matrices = nn.Parameter(torch.stack(matrices), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[part].flatten(0, 1) @ self.matrices[l] for l, part in enumerate(self.slices)]
        return torch.cat(parts).view(x.shape)


class _ClosedContraction(nn.Module):
    """[(l_max + 1)², n, C] and elements [n, Z] one-hot -> [n, C]; see the module's text."""

    def __init__(self, contraction: nn.Module, num_elements: int, channels: int, degrees: int) -> None:
        super().__init__()
        self.slices = [slice(l * l, (l + 1) ** 2) for l in range(degrees)]
        elements = torch.eye(num_elements)

        def at(component: int, value: float) -> Tensor:
            x = torch.zeros(num_elements, channels, degrees**2)
            x[:, :, component] = value
            out: Tensor = contraction(x, elements)
            return out

        up, down = at(0, 1.0), at(0, -1.0)
        squares = [(up + down) / 2, *(at(l * l, 1.0) for l in range(1, degrees))]
        self.linear = nn.Parameter((up - down) / 2, requires_grad=False)
        self.squares = nn.Parameter(torch.stack(squares, dim=1).flatten(1), requires_grad=False)

    def forward(self, x: Tensor, elements: Tensor) -> Tensor:
        squared = x.square()
        sums = torch.stack([squared[part].sum(0) for part in self.slices], dim=1)
        weights = (elements @ self.squares).view(sums.shape)
        return (elements @ self.linear) * x[0] + (weights * sums).sum(1)


class _ChannelsFirst(nn.Module):
    """For a contraction of higher order: [n, C, (l_max + 1)²], as mace has it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(1, 2, 0).contiguous()
