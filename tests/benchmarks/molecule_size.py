"""Cost per molecule and denoising step against the number of atoms, for some batch sizes, on one core.

    python tests/benchmarks/molecule_size.py [--published] [--plot deploy/images/molecule_size.png]

Samples molecules of one size with ``sample_molecules``, as a user does, in a few denoising steps. Processor
time, so that it does not matter what else runs; the best of two repetitions counts. --published adds a
network of the published size (9 layers of 256), random weights, and takes some minutes. Prints Markdown and
writes a plot with the fitted exponents.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elign.common.checkpoint import load_policy
from elign.common.network_cost import NetworkShape, evaluation_cost
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.process_memory import keep_freed_memory
from elign.common.sampling import sample_molecules
from elign.common.storage import write_atomic

SIZES = (9, 18, 29, 60, 120, 181)
BATCHES = (1, 4, 16, 64)
STEPS = 3
EVALUATIONS = STEPS + 1
"""The last one decodes."""
REPEATS = 2
MAX_FLOPS = 3e11
"""Batches of several molecules that need more in one call take too long on a core, and are left out."""
LEAST_FITTED = 29
"""Below, the fixed cost of a step counts as much as the pairs of atoms."""
COLOURS = ("#2563eb", "#0f9f7a", "#d9730d", "#7c3aed")


@dataclass(frozen=True)
class Measured:
    """seconds: batch -> size -> seconds per molecule and denoising step; flops: size -> of one molecule."""

    name: str
    seconds: dict[int, dict[int, float]]
    flops: dict[int, int]

    def exponent(self, batch: int) -> float | None:
        """p of seconds ~ atoms^p by least squares in the logarithms, over sizes of LEAST_FITTED and more.

        None where fewer than two were measured.
        """
        sizes = [size for size in self.seconds[batch] if size >= LEAST_FITTED]
        if len(sizes) < 2:
            return None
        logs = np.log([self.seconds[batch][size] for size in sizes])
        return float(np.polyfit(np.log(sizes), logs, 1)[0])


def measure(name: str, policy: DiffusionPolicy) -> Measured:
    """All sizes and batches that are affordable."""
    shape = NetworkShape.of(policy.spec)
    _seconds(policy, SIZES[0], 1)  # code is loaded at first use
    flops = {size: evaluation_cost(shape, num_molecules=1, num_atoms=size).flops for size in SIZES}
    seconds: dict[int, dict[int, float]] = {}
    for batch in BATCHES:
        sizes = [size for size in SIZES if batch == 1 or flops[size] * batch * EVALUATIONS <= MAX_FLOPS]
        seconds[batch] = {size: _seconds(policy, size, batch) for size in sizes}
    return Measured(name, seconds, flops)


def _seconds(policy: DiffusionPolicy, size: int, batch: int) -> float:
    """Per molecule and evaluation."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        sample_molecules(policy, [size] * batch, num_steps=STEPS, seed=0)
        best = min(best, time.process_time() - started)
    return best / (batch * EVALUATIONS)


def markdown(measured: Measured) -> str:
    """Milliseconds by size and batch, the best rate of arithmetic, and the exponents."""
    heads = [f"batch {batch}" for batch in measured.seconds]
    lines = [
        f"{measured.name}, ms per molecule and step",
        "",
        f"| atoms | {' | '.join(heads)} | GFLOP/s |",
        "|---:|" + "---:|" * (len(heads) + 1),
    ]
    for size in SIZES:
        cells = [_milliseconds(row.get(size)) for row in measured.seconds.values()]
        best = min((row[size] for row in measured.seconds.values() if size in row), default=None)
        rate = "" if best is None else f"{measured.flops[size] / best / 1e9:.0f}"
        lines.append(f"| {size} | {' | '.join(cells)} | {rate} |")
    exponents = [_two_digits(measured.exponent(batch)) for batch in measured.seconds]
    lines.append(f"| exponent from {LEAST_FITTED} | {' | '.join(exponents)} | |")
    return "\n".join(lines)


def _milliseconds(seconds: float | None) -> str:
    return (
        ""
        if seconds is None
        else f"{1e3 * seconds:#.3g}".rstrip(".")
        if seconds < 1
        else f"{1e3 * seconds:.0f}"
    )


def _two_digits(exponent: float | None) -> str:
    return "" if exponent is None else f"{exponent:.2f}"


def plot(results: list[Measured], path: Path) -> None:
    """One panel a network, a line a batch size, on logarithmic axes."""
    figure = Figure(figsize=(5.5 * len(results), 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for place, measured in enumerate(results, start=1):
        axes = figure.add_subplot(1, len(results), place)
        for (batch, row), colour in zip(measured.seconds.items(), COLOURS, strict=False):
            exponent = _two_digits(measured.exponent(batch))
            label = f"batch {batch}" + (f", exponent {exponent}" if exponent else "")
            values = [1e3 * seconds for seconds in row.values()]
            axes.loglog(list(row), values, color=colour, linewidth=2.2, marker="o", markersize=4, label=label)
        axes.set_title(f"{measured.name}: ms per molecule and step, one core", fontsize=11, loc="left")
        axes.set_xlabel("atoms", fontsize=9, color="#5f6b7d")
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
        axes.tick_params(labelsize=9, colors="#5f6b7d", length=0)
        axes.grid(color="#e3e7ee")
        axes.spines[:].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--published", action="store_true", help="also 9 layers of 256, as published")
    parser.add_argument("--plot", type=Path, help="write the plot as PNG")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    policies = {"shipped, 5x64": load_policy("elign-qm9-small").eval()}
    if given.published:
        policies["published size, 9x256"] = DiffusionPolicy(PolicySpec(hidden=256, num_layers=9)).eval()
    results = [measure(name, policy) for name, policy in policies.items()]
    print(f"{platform.machine()}, one of {os.cpu_count()} CPU cores, torch {torch.__version__}\n")
    print("\n\n".join(markdown(measured) for measured in results))
    if given.plot is not None:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
