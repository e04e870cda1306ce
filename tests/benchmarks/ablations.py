"""Does each ingredient of FED-GRPO earn its place? Short runs of the laptop preset with one thing changed.

    python -m tests.benchmarks.ablations --folder runs/ablations [--iterations 20] [--seeds 3] [-n 256]
        [--data qm9_12000.npz] [names...]

Every variant is trained with the same seeds, as ``elign train`` would, and its best policy is judged on the
same sizes and random numbers. Printed as Markdown: means over the seeds, and the difference from the whole
method, paired by seed, with the 95 % interval of Student's t. Finished runs in the folder are kept.

With ``--data``, two more variants are rewarded by GFN2-xTB, whose energies count from free atoms,
or above what the data have of the same composition: what does that do to the element mix?
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from elign.common.devices import cpu_name
from elign.common.process_memory import keep_freed_memory
from tests.benchmarks.few_steps import BASELINE, judge
from tests.benchmarks.main_job import is_finished

WHOLE = "whole method"
VARIANTS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "mixed normalization": ("learner.normalization=mixed",),
    "terminal energy, no shaping": ("reward.energy_mode=terminal",),
    "no shared prefix": ("rollout.shared_prefix=0",),
    "KL 0.04": ("learner.kl_coefficient=0.04",),
    "w_E = 0": ("reward.energy_weight=0",),
    "w_E = 0.5": ("reward.energy_weight=0.5",),
    "no stability channel": ("reward.stability_weight=0",),
}
ROWS = (
    ("gfn2-xtb.rms_force", "mean RMS force by GFN2-xTB, eV/Å", 1.0, 2),
    ("gfn2-xtb.formation_energy", "energy above composition, eV/atom", 1.0, 3),
    ("molecule_stability", "stable molecules, %", 100.0, 1),
    ("validity_x_uniqueness", "validity x uniqueness, %", 100.0, 1),
    ("internal_diversity", "internal diversity", 1.0, 3),
)
HYDROGEN = ("hydrogen", "H, % of the atoms", 100.0, 1)
COLUMNS = (*ROWS, HYDROGEN)
STEPS = 50


def variants(data: str | None) -> dict[str, tuple[str, ...]]:
    """All that can be compared."""
    if data is None:
        return VARIANTS
    by_gfn2 = ("reward.force_field=gfn2-xtb", "reward.energy_weight=0.5")
    return VARIANTS | {
        "GFN2-xTB, w_E = 0.5, from free atoms": by_gfn2,
        "GFN2-xTB, w_E = 0.5, above composition": (*by_gfn2, f"reward.composition_data={data}"),
    }


def train(folder: Path, settings: tuple[str, ...], iterations: int, seed: int) -> None:
    """A run directory, unless it is there and finished; an interrupted one goes on."""
    if is_finished(folder):
        return
    given = [f"run.iterations={iterations}", f"run.seed={seed}", *settings]
    overrides = [part for setting in given for part in ("--set", setting)]
    command = ["train", "--preset", "laptop", *overrides, "--run-dir", str(folder)]
    if (folder / "checkpoints").exists():
        command = ["train", "--run-dir", str(folder), "--resume"]
    subprocess.run([sys.executable, "-m", "elign", *command], check=True)


def figures(policy: str, number: int) -> list[float]:
    """The estimates of ``COLUMNS``."""
    result, _ = judge(policy, STEPS, number, seed=1)
    known = [scale * result.summary[key].estimate for key, _, scale, _ in ROWS]
    return [*known, HYDROGEN[2] * result.elements[1] / sum(result.elements.values())]


def t_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of a few numbers."""
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return float(differences.mean() - half), float(differences.mean() + half)


def cells(own: np.ndarray, whole: np.ndarray) -> list[str]:
    """own, whole: [seeds, rows]."""
    texts = []
    for column, (_, _, _, digits) in enumerate(COLUMNS):
        change = own[:, column] - whole[:, column]
        low, high = t_interval(change)
        mark = "**" if low * high > 0 else ""
        texts.append(
            f"{own[:, column].mean():.{digits}f}: {mark}{change.mean():+.{digits}f}{mark} "
            f"({low:+.{digits}f} to {high:+.{digits}f})"
        )
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help="of the variants; all by default")
    parser.add_argument("--data", help="molecules for the variants that need them")
    parser.add_argument("--folder", type=Path, required=True, help="for the run directories")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", "--number", type=int, default=256)
    given = parser.parse_args()
    keep_freed_memory()
    settings = variants(given.data)
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([WHOLE, *(given.names or settings)]):
        folders = [
            given.folder / f"{name.replace(' ', '_').replace(',', '')}_{s}" for s in range(given.seeds)
        ]
        for seed, folder in enumerate(folders):
            train(folder, settings[name], given.iterations, seed)
        found[name] = np.array([figures(str(folder), given.number) for folder in folders])
    print(f"{cpu_name()}; {given.iterations} iterations, ", end="")
    print(f"{given.seeds} seeds, {given.number} molecules of each run at {STEPS} steps\n")
    print(f"| variant | {' | '.join(label for _, label, _, _ in COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    before = figures(BASELINE, given.number)
    for name, row in (("(before)", before), (f"{WHOLE}, mean", found[WHOLE].mean(0))):
        print(f"| {name} | {' | '.join(f'{v:.{d}f}' for v, (*_, d) in zip(row, COLUMNS, strict=True))} |")
    for name, own in found.items():
        if name != WHOLE:
            print(f"| {name} | {' | '.join(cells(own, found[WHOLE]))} |")


if __name__ == "__main__":
    main()
