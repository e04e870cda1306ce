"""What sampling ahead brings: the same run in turns and at lag 1, by time, idle shares and learning.

    python -m tests.benchmarks.overlap --folder runs/overlap [--iterations 40]

Two runs of the laptop preset, one after the other, with the same seed and number of iterations. Learning per
sample is the objective, averaged over the last quarter of the iterations, of each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

from elign.learner.run_metrics import Row, read_metrics

LAGS = {"in turns": 0, "lag 1": 1}
COLUMNS = {
    "seconds an iteration": "time_iteration_s",
    "learner idle": "idle_share_learner",
    "actors idle": "idle_share_actors",
    "mean lag": "policy_lag_mean",
    "dropped as stale": "plans_dropped_stale",
}


def run(folder: Path, lag: int, iterations: int) -> list[Row]:
    settings = (f"rollout.max_policy_lag={lag}", f"run.iterations={iterations}")
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "elign",
        "train",
        "--preset",
        "laptop",
        "--run-dir",
        str(folder),
        *chosen,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return read_metrics(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the two run directories")
    parser.add_argument("--iterations", type=int, default=40)
    given = parser.parse_args()
    print(f"| run | {' | '.join(COLUMNS)} | objective, last quarter | minutes |")
    print(f"|---|{'---:|' * (len(COLUMNS) + 2)}")
    for label, lag in LAGS.items():
        began = time.monotonic()
        rows = run(given.folder / label.replace(" ", "-"), lag, given.iterations)
        minutes = (time.monotonic() - began) / 60
        cells = [f"{mean(row[name] for row in rows[1:]):.3f}" for name in COLUMNS.values()]
        last = mean(row["objective"] for row in rows[-max(len(rows) // 4, 1) :])
        print(f"| {label} | {' | '.join(cells)} | {last:.3f} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
