"""From the command to the first samples: ``elign train --preset laptop`` by the clock.

    python -m tests.benchmarks.start_up [--repeats 3]

Milestones: the starting policy's molecules for the report are written (those are the first samples), an actor
is up, the first group has its rewards (seen every two seconds), the first iteration is done.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from elign.common.devices import cpu_name
from elign.common.run_control import STATUS_FILE
from elign.learner.run_metrics import METRICS_FILE

Milestone = Callable[[Path], bool]


def status(run_dir: Path) -> dict[str, object]:
    path = run_dir / STATUS_FILE
    return json.loads(path.read_text(encoding="utf-8"))["pool"] if path.exists() else {}


MILESTONES: dict[str, Milestone] = {
    "molecules of the starting policy are written": lambda run: (run / "before.parquet").exists(),
    "an actor is up": lambda run: any(a["state"] == "up" for a in status(run).get("actors", [])),  # type: ignore
    "the first group has its rewards": lambda run: bool(status(run).get("completed")),
    "the first iteration is done": lambda run: (run / METRICS_FILE).exists(),
}


def measure() -> dict[str, float]:
    """Seconds to each milestone."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        began = time.monotonic()
        command = [sys.executable, "-m", "elign", "train", "--preset", "laptop", "--run-dir", str(run_dir)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        reached: dict[str, float] = {}
        while len(reached) < len(MILESTONES) and process.poll() is None:
            for name, is_there in MILESTONES.items():
                if name not in reached and is_there(run_dir):
                    reached[name] = time.monotonic() - began
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait()
        return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found = [measure() for _ in range(given.repeats)]
    print(f"{cpu_name()}, median of {given.repeats}\n")
    print("| from the command until | seconds |\n|---|---:|")
    for name in MILESTONES:
        print(f"| {name} | {median(times[name] for times in found):.1f} |")


if __name__ == "__main__":
    main()
