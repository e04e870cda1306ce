"""How fast a device can be at best, measured: its rate of matrix products, and its memory bandwidth.

    ceilings = measure_ceilings(torch.device("cpu"), rows=5184, hidden=64)
    ceilings.product_flops, ceilings.square_flops, ceilings.bandwidth

On a CPU these are rates of one thread, for actors and the learner's chunks have one each, per second on a
processor, so that it does not matter what else runs. The best of some repetitions counts: noise only ever
slows down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from elign.common.threads import one_thread

SQUARE = {"cpu": 1536, "cuda": 8192}
"""Edge of the large square product, by kind of device: large enough for the device's best rate."""
TRIAD_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
"""float32 numbers in each array of the triad: several times what caches hold."""
_REPEATS = 8
_LEAST_S = 0.02


@dataclass(frozen=True)
class DeviceCeilings:
    """product_flops, square_flops: FLOP/s of float32 products at the network's and at a large square size.

    bandwidth: bytes/s of a = b + s c over arrays that no cache holds. threads: in use while measuring.
    """

    device: str
    threads: int
    product_flops: float
    square_flops: float
    bandwidth: float


@torch.no_grad()
def measure_ceilings(device: torch.device, *, rows: int, hidden: int) -> DeviceCeilings:
    """Takes about a second. rows: pairs of atoms in a typical batch; hidden: width of the network."""
    square = SQUARE[device.type]
    with one_thread():
        return DeviceCeilings(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            threads=1,
            product_flops=_product_rate(device, rows, hidden, hidden),
            square_flops=_product_rate(device, square, square, square),
            bandwidth=_triad_rate(device, TRIAD_ELEMENTS[device.type]),
        )


def _product_rate(device: torch.device, rows: int, inner: int, columns: int) -> float:
    """FLOP/s of [rows, inner] @ [inner, columns]."""
    left, right = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    result = torch.empty(rows, columns, device=device)
    seconds = _best_seconds(lambda: torch.mm(left, right, out=result), device)
    return 2.0 * rows * inner * columns / seconds


def _triad_rate(device: torch.device, elements: int) -> float:
    """bytes/s of the triad: two arrays read, one written."""
    b, c = torch.ones(elements, device=device), torch.ones(elements, device=device)
    a = torch.empty(elements, device=device)
    seconds = _best_seconds(lambda: torch.add(b, c, alpha=3.0, out=a), device)
    return 3.0 * a.element_size() * elements / seconds


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call: the best of some rounds, each long enough for the clock."""
    _timed(work, device, 1)  # the first call sets up
    repeats = max(1, round(_LEAST_S / _timed(work, device, 1)))
    return min(_timed(work, device, repeats) for _ in range(_REPEATS)) / repeats


def _timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the device: of this thread on a processor, or until the GPU is done."""
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    started = clock()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(clock() - started, 1e-9)
