"""A policy for one molecule's formula: how many of its samples lie close above the best minimum known?

    python -m tests.benchmarks.composition --run-dir runs/isomers [--formula C3H6O] [--iterations 30] [-n 256]
        [--data qm9_12000.npz]

Trains the laptop preset on that composition alone (unless the run is there and finished), samples it with the
shipped policy and the trained one, the same random numbers for both, and relaxes every sample by GFN2-xTB.
The best minimum is the lowest that any of them reached, or a molecule of the data. Prints Markdown with 95 %
intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from elign.common.data import load_dataset
from elign.common.devices import cpu_name
from elign.common.molecules import Molecules
from elign.common.process_memory import keep_freed_memory
from elign.common.progress import show_progress
from elign.common.prompts import parse_formula
from elign.common.statistics import Sample, bootstrap_difference
from elign.reward_server.relaxation import relax
from elign.reward_server.xtb import Gfn2ForceField
from elign.samples import open_policy, sample_sizes
from tests.benchmarks.main_job import elign, is_finished

BASELINE = "elign-qm9-small"
CLOSE = 0.1
"""eV above the best minimum."""
LOST = 1e3
"""eV: what a sample counts that fell apart; it only enters shares."""


def minima(molecules: Molecules, label: str) -> np.ndarray:
    """[B] eV after relaxation; NaN where there is none."""
    field = Gfn2ForceField()
    with show_progress(f"relaxing {label}") as progress:
        relaxed = relax(field, molecules, "qm9", progress=progress)
    energy: np.ndarray = field.evaluate(relaxed.molecules).energy.numpy()
    return np.where([failure is None for failure in relaxed.failures], energy, np.nan)


def sampled(name: str, elements: list[int], number: int, seed: int) -> Molecules:
    source = open_policy(name, device="cpu", num_steps=50)
    with show_progress(f"sampling {name}") as progress:
        return sample_sizes(source, [len(elements)] * number, seed=seed, elements=elements, progress=progress)


def of_formula(data: str, elements: list[int]) -> Molecules:
    """The data's molecules of this composition."""
    molecules = load_dataset(data).molecules
    alike = molecules.num_atoms == len(elements)
    wanted = torch.tensor(sorted(elements))
    for i in alike.nonzero().flatten().tolist():
        numbers = molecules.atomic_numbers[i][molecules.node_mask[i]]
        alike[i] = torch.equal(numbers.sort().values, wanted)
    return molecules[alike.nonzero().flatten()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--formula", default="C3H6O")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("-n", "--number", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", help="real molecules, whose minima count as known")
    given = parser.parse_args()
    keep_freed_memory()
    if not is_finished(given.run_dir):
        settings = (f"rollout.formulas=[{given.formula}]", f"run.iterations={given.iterations}")
        overrides = [part for setting in settings for part in ("--set", setting)]
        elign("train", "--preset", "laptop", *overrides, "--run-dir", str(given.run_dir))
    elements = parse_formula(given.formula, "qm9")
    names = {"before": BASELINE, "after": str(given.run_dir)}
    energies = {
        label: minima(sampled(name, elements, given.number, given.seed), label)
        for label, name in names.items()
    }
    known = [np.nanmin(energy) for energy in energies.values()]
    if given.data is not None:
        known.append(np.nanmin(minima(of_formula(given.data, elements), "data")))
    best = min(known)
    above = {label: np.nan_to_num(energy - best, nan=LOST) for label, energy in energies.items()}
    everyone = np.ones(given.number)
    rows = {
        f"within {CLOSE:g} eV of the best minimum, %": lambda x: x < CLOSE,
        "within 1 eV, %": lambda x: x < 1.0,
        "fell apart or not judged, %": lambda x: x == LOST,
    }
    print(f"{cpu_name()}; {given.formula}, {given.number} samples each\n")
    print("| after relaxation | before | after | difference (95 % interval) |\n|---|---:|---:|---:|")
    for label, belongs in rows.items():
        before, after = (Sample(100.0 * belongs(above[side]), everyone) for side in ("before", "after"))
        change = bootstrap_difference(before, after, statistic="mean", paired=True)
        print(
            f"| {label} | {before.values.mean():.2f} | {after.values.mean():.2f} "
            f"| {change.estimate:+.2f} ({change.low:+.2f} to {change.high:+.2f}) |"
        )


if __name__ == "__main__":
    main()
