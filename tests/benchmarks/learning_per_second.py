"""What training on a random half of the steps does to learning per second.

    python -m tests.benchmarks.learning_per_second --folder runs/half [--minutes 8] [-n 256]

Two runs of the laptop preset side by side for the same time on the same cores: one trains on every step of
its trajectories, the other on a random half, drawn anew each iteration. Both are then judged on the same
sizes and random numbers.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from elign.common.devices import cpu_name
from elign.learner.run_metrics import read_metrics
from tests.benchmarks.few_steps import BASELINE, ROWS, judge

VARIANTS = {
    "all steps": (),
    "a random half of the steps": ("--set", "learner.steps_per_iteration=16"),
}
ENDLESS = ("--set", "run.iterations=10000", "--set", "learner.final_learning_rate=8.0e-5")
STEPS = 50


def start(folder: Path, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
    command = ["train", "--preset", "laptop", *ENDLESS, *settings, "--run-dir", str(folder)]
    return subprocess.Popen([sys.executable, "-m", "elign", *command], stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the two run directories")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("-n", "--number", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folders = {label: given.folder / f"run{i}" for i, label in enumerate(VARIANTS)}
    runs = [start(folders[label], settings) for label, settings in VARIANTS.items()]
    time.sleep(60 * given.minutes)
    for run in runs:
        run.send_signal(signal.SIGINT)
    for run in runs:
        run.wait()
    print(f"{cpu_name()} shared by both, {given.minutes:g} minutes\n")
    print(f"| trained on | iterations | {' | '.join(label for _, label, _, _ in ROWS)} |")
    print(f"|---|---:|{'---:|' * len(ROWS)}")
    for label, place in {"(before)": None, **folders}.items():
        result, _ = judge(BASELINE if place is None else str(place), STEPS, given.number, given.seed)
        cells = [f"{scale * result.summary[key].estimate:.{digits}f}" for key, _, scale, digits in ROWS]
        iterations = 0 if place is None else len(read_metrics(place))
        print(f"| {label} | {iterations} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
