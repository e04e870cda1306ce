"""How many directed edges a batch may hold: enough to fill the device, not so many that it slows down.

On a CPU the budget is a function of the model alone. A measured one would differ between two starts, other
batches would round otherwise in the last bits, and one seed would no longer give one run. On a GPU, where
sums are not reproducible anyway, it is measured when the force field is loaded.

    find_budget(seconds_of, smallest=1_000, largest=16_000_000)

A molecule in one piece has at least two edges per atom but one, so a bound on edges is one on atoms too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

CPU_MESSAGE_BYTES = 13_824_000
"""Bytes of one layer's messages in a CPU batch. Throughput is flat around it and falls beyond it, as the
cache overflows, for small MACEs (8,000 edges of the shipped one) as for larger ones (2,000 of one with 96
channels and l = 3); ``tests/benchmarks/reward_server.py`` prints it beside what a search finds."""

SMALLEST, LARGEST = 1_000, 16_000_000
_WORTHWHILE = 1.05  # a larger batch must be so many times faster per edge


def cpu_budget(network: nn.Module, dtype: torch.dtype) -> int:
    """Edges per batch of a MACE on a CPU: the same at every start and on every machine."""
    if hasattr(network, "edges_per_batch"):  # of ``scalar_mace``
        return cast(int, network.edges_per_batch)
    interactions = cast(nn.ModuleList, network.interactions)
    width = max(int(cast(Any, layer).conv_tp.irreps_out.dim) for layer in interactions)
    return max(1, CPU_MESSAGE_BYTES // (width * dtype.itemsize))


def find_budget(
    seconds_of: Callable[[int], float],
    *,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
    limit_s: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """The largest number of edges that still speeds a batch up, by doubling from ``smallest``.

    seconds_of(edges): how long a batch of about so many edges takes; raises where memory does not suffice
    (see ``is_out_of_memory``). The search ends where doubling gains less than 5 % per edge, twice in a row so
    that one disturbed measurement does not decide; at ``largest``; or after ``limit_s``.
    """
    deadline = clock() + limit_s
    best, best_rate, misses = smallest, 0.0, 0
    edges = smallest
    while edges <= largest and misses < 2 and clock() < deadline:
        try:
            rate = edges / seconds_of(edges)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if rate > _WORTHWHILE * best_rate:
            best, best_rate, misses = edges, rate, 0
        else:
            misses += 1
        edges *= 2
    return best


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of the device's memory; the CPU's allocator has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
