"""The README's table and curves: the main job from start to end, then its evaluation against the baseline.

    python tests/benchmarks/main_job.py --run-dir runs/benchmark [--number 256] [--curves docs.png]

Runs ``elign train --preset laptop`` (unless the run is there and finished) and ``elign evaluate``, each as a
user would, and prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from elign.common.devices import cpu_name
from elign.learner.curves_figure import plot_curves

ROWS = (
    ("gfn2-xtb.rms_force", "mean RMS force by GFN2-xTB, eV/Å", 1.0, 2),
    ("gfn2-xtb.rms_force_median", "median RMS force by GFN2-xTB, eV/Å", 1.0, 2),
    ("elign-mace-small.rms_force", "mean RMS force by the shipped force field, eV/Å", 1.0, 2),
    ("gfn2-xtb.formation_energy", "formation energy by GFN2-xTB against fitted elements, eV/atom", 1.0, 3),
    ("gfn2-xtb.judged", "in one piece, GFN2-xTB converged, %", 100.0, 1),
    ("atom_stability", "stable atoms, %", 100.0, 1),
    ("molecule_stability", "stable molecules, %", 100.0, 1),
    ("validity", "validity (RDKit), %", 100.0, 1),
    ("uniqueness", "uniqueness of the valid, %", 100.0, 1),
    ("validity_x_uniqueness", "validity x uniqueness, %", 100.0, 1),
)


def elign(*arguments: str) -> float:
    """Run the command, its progress shown; returns seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "elign", *arguments], check=True)
    return time.perf_counter() - started


def is_finished(run_dir: Path) -> bool:
    """Whether a run is there that came to its end."""
    state = run_dir / "run.json"
    return state.exists() and json.loads(state.read_text(encoding="utf-8"))["state"] == "finished"


def markdown(comparison: dict[str, Any]) -> str:
    """Baseline, trained and paired difference with its 95 % interval."""
    lines = ["| measure | before | after | difference (95 % interval) |", "|---|---:|---:|---:|"]
    for name, label, scale, digits in ROWS:
        before, after = (comparison[side]["measures"][name]["estimate"] for side in ("baseline", "trained"))
        change = comparison["difference"][name]
        low, high = (f"{scale * change[end]:+.{digits}f}" for end in ("low", "high"))
        mark = "**" if change["excludes_zero"] else ""
        lines.append(
            f"| {label} | {scale * before:.{digits}f} | {scale * after:.{digits}f} "
            f"| {mark}{scale * change['estimate']:+.{digits}f}{mark} ({low} to {high}) |"
        )
    return "\n".join(lines)


def element_mix(evaluation: dict[str, Any]) -> str:
    """Per cent of the atoms."""
    counts = evaluation["elements"]
    total = sum(counts.values())
    return ", ".join(f"{100 * count / total:.0f} % {symbol}" for symbol, count in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--number", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--curves", type=Path, help="also write the curves as PNG")
    given = parser.parse_args()
    result = given.run_dir / "evaluation.json"
    policy = ("--policy", str(given.run_dir), "--baseline", "elign-qm9-small")
    training = None
    if not is_finished(given.run_dir):
        training = elign("train", "--preset", "laptop", "--run-dir", str(given.run_dir))
    size = ("-n", str(given.number), "--seed", str(given.seed))
    evaluation = elign("evaluate", *policy, *size, "--json", str(result))
    if given.curves is not None:
        plot_curves(given.run_dir, given.curves)
    print(f"{cpu_name()}, Python {platform.python_version()}")
    if training is not None:
        print(f"training {training / 60:.1f} min")
    print(f"evaluation of 2 x {given.number} molecules {evaluation / 60:.1f} min\n")
    comparison = json.loads(result.read_text(encoding="utf-8"))
    print(markdown(comparison))
    for side, when in (("baseline", "before"), ("trained", "after")):
        print(f"\natoms {when}: {element_mix(comparison[side])}")


if __name__ == "__main__":
    main()
