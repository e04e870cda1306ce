"""What sampling ahead brings: the same run in turns and at lag 1, by time, idle shares and learning.

    python -m tests.benchmarks.overlap --folder runs/overlap [--iterations 20] [--seeds 2] [--set learner.…=…]

Runs of the laptop preset, one after the other, with the same number of iterations; a run that is in the
folder already is not repeated. Learning per sample is the objective, averaged over the last quarter of the
iterations.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
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


def run(folder: Path, iterations: int, settings: list[str]) -> list[Row]:
    if folder.exists():
        rows = read_metrics(folder)
        if len(rows) != iterations:
            raise SystemExit(
                f"{folder} holds another or an unfinished run; remove it, or choose another --folder"
            )
        return rows
    settings = [f"run.iterations={iterations}", *settings]
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "elign", "train", "--preset", "laptop", "--run-dir", str(folder)]
    subprocess.run([*command, *chosen], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return read_metrics(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the run directories")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--set", action="append", default=[], help="as of elign train")
    given = parser.parse_args()
    print(f"| run | seed | {' | '.join(COLUMNS)} | objective, last quarter |")
    print(f"|---|{'---:|' * (len(COLUMNS) + 2)}")
    for seed in range(given.seeds):
        for label, lag in LAGS.items():
            ours = [f"rollout.max_policy_lag={lag}", f"run.seed={seed}"]
            rows = run(given.folder / f"seed-{seed}-lag-{lag}", given.iterations, [*ours, *given.set])
            cells = [f"{mean(row[name] for row in rows[1:]):.2f}" for name in COLUMNS.values()]
            last = mean(row["objective"] for row in rows[-max(len(rows) // 4, 1) :])
            print(f"| {label} | {seed} | {' | '.join(cells)} | {last:.2f} |", flush=True)


if __name__ == "__main__":
    main()
