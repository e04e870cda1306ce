"""Compiled loops over the edges of a MACE with scalar features, on a CPU, in float32.

    A[lm, i, c] = k_l sum_e R_l(r_e)[c] h_sender(e)[c] Y_lm(e),    e the edges into i

R_l, the radial weights, depend on an edge's length alone. They are tabulated with their first two
derivatives on an even grid, and interpolated by cubic Hermite polynomials: values from values and slopes,
slopes from slopes and curvatures, so that no digits cancel. Nothing is written for an edge but its share of
the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RadialTable:
    """rows: [G + 1, 3, (l_max + 1) C] float32, values, first and second derivatives. spacing: Å.

    scales: [l_max + 1] float32, k_l.
    """

    rows: np.ndarray
    spacing: float
    scales: np.ndarray


class EdgeSum(torch.autograd.Function):
    """``EdgeSum.apply(h, Y, lengths, edge_index, table)``: A [(l_max + 1)², n, C]; differentiable once.

    h: [n, C]. Y: [E, (l_max + 1)²]. lengths: [E, 1]. edge_index: [2, E] (sender, receiver), receivers
    ascending.
    """

    @staticmethod
    def forward(
        ctx: Any, nodes: Tensor, harmonics: Tensor, lengths: Tensor, edge_index: Tensor, table: RadialTable
    ) -> Tensor:
        given = (nodes, harmonics, lengths.flatten(), edge_index)
        ctx.arrays, ctx.table = [x.detach().contiguous().numpy() for x in given], table
        out = np.zeros((harmonics.shape[1], *nodes.shape), dtype=np.float32)
        _sum_edges(*ctx.arrays, table.rows, table.spacing, table.scales, out)
        return torch.from_numpy(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        nodes, harmonics, lengths, _ = ctx.arrays
        pulled = (np.zeros_like(nodes), np.empty_like(harmonics), np.empty_like(lengths))
        table = ctx.table
        _pull_back(
            *ctx.arrays, table.rows, table.spacing, table.scales, gradient.contiguous().numpy(), *pulled
        )
        to_nodes, to_harmonics, to_lengths = (torch.from_numpy(x) for x in pulled)
        return to_nodes, to_harmonics, to_lengths[:, None], None, None


_compiled = numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)


@_compiled
def _place(length, spacing, last_row):  # type: ignore[no-untyped-def]
    """(row, Hermite weights of lower value, upper value, lower slope, upper slope) of a length."""
    x = length / spacing
    row = min(max(int(x), 0), last_row)
    t = x - row
    return (
        row,
        np.float32((1 + 2 * t) * (1 - t) ** 2),
        np.float32(t * t * (3 - 2 * t)),
        np.float32(spacing * t * (1 - t) ** 2),
        np.float32(spacing * t * t * (t - 1)),
    )


@_compiled
def _sum_edges(nodes, harmonics, lengths, edges, rows, spacing, scales, out):  # type: ignore[no-untyped-def]
    channels, last_row = nodes.shape[1], len(rows) - 2
    message = np.empty(channels, dtype=np.float32)
    for e in range(len(lengths)):
        row, a, b, c, d = _place(lengths[e], spacing, last_row)
        sender, receiver = nodes[edges[0, e]], edges[1, e]
        lower, upper = rows[row], rows[row + 1]
        for l in range(len(scales)):
            scale = scales[l]
            for k in range(channels):
                n = l * channels + k
                weight = a * lower[0, n] + b * upper[0, n] + c * lower[1, n] + d * upper[1, n]
                message[k] = scale * weight * sender[k]
            for m in range(l * l, (l + 1) * (l + 1)):
                y = harmonics[e, m]
                for k in range(channels):
                    out[m, receiver, k] += y * message[k]


@_compiled
def _pull_back(  # type: ignore[no-untyped-def]
    nodes,
    harmonics,
    lengths,
    edges,
    rows,
    spacing,
    scales,
    gradient,
    to_nodes,
    to_harmonics,
    to_lengths,
):
    channels, last_row = nodes.shape[1], len(rows) - 2
    along = np.empty(channels, dtype=np.float32)
    message = np.empty(channels, dtype=np.float32)
    for e in range(len(lengths)):
        row, a, b, c, d = _place(lengths[e], spacing, last_row)
        sender, to_sender, receiver = nodes[edges[0, e]], to_nodes[edges[0, e]], edges[1, e]
        lower, upper = rows[row], rows[row + 1]
        stretch = np.float32(0)
        for l in range(len(scales)):
            scale = scales[l]
            along[:] = 0
            for m in range(l * l, (l + 1) * (l + 1)):
                y = harmonics[e, m]
                for k in range(channels):
                    along[k] += y * gradient[m, receiver, k]
            for k in range(channels):
                n = l * channels + k
                weight = scale * (a * lower[0, n] + b * upper[0, n] + c * lower[1, n] + d * upper[1, n])
                slope = scale * (a * lower[1, n] + b * upper[1, n] + c * lower[2, n] + d * upper[2, n])
                to_sender[k] += weight * along[k]
                stretch += slope * sender[k] * along[k]
                message[k] = weight * sender[k]
            for m in range(l * l, (l + 1) * (l + 1)):
                share = np.float32(0)
                for k in range(channels):
                    share += message[k] * gradient[m, receiver, k]
                to_harmonics[e, m] = share
        to_lengths[e] = stretch
