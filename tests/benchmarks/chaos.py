"""A training run whose processes are killed at random, and an account of every group it asked for.

    python -m tests.benchmarks.chaos --minutes 10 [--kills 25] [--lag 1] [--learners 2] [--run-dir runs/chaos]

Rollout actors, replicas and front of the reward server, learners and the run's own process get SIGKILL; the
run is resumed when it has died itself. At the end it is stopped, and each group must have been used once, or
be known as open or set aside. Exits with 1 when one was lost or used twice.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pyarrow.parquet as pq

from elign.learner.run_checkpoint import list_checkpoints, load_checkpoint
from elign.learner.run_metrics import METRICS_FILE, read_metrics
from elign.learner.set_aside_log import read_set_aside
from tests.benchmarks.process_tree import descendants, kill

SETTINGS = (
    "rollout.num_steps=12",
    "rollout.groups=4",
    "rollout.samples_per_group=4",
    "actors.max=3",
    "reward.replicas=2",
    "learner.skip_last=2",
    "run.iterations=1000000",
    "run.sample_every=1",
    "run.checkpoint_every=5",
    "run.watch=0",
)
ACTOR, REPLICA, SERVER, DRIVER = "RolloutActor", "RewardReplica", "RewardServer", "driver"
LEARNER = "_WrappedExecutable"  # as Ray Train, which RLlib starts its learners with, calls them
TURNS = (ACTOR, REPLICA, ACTOR, LEARNER, ACTOR, SERVER, ACTOR, DRIVER)


class Run:
    """``elign train`` in a process of its own, begun or resumed."""

    def __init__(self, run_dir: Path, settings: tuple[str, ...]) -> None:
        self.run_dir, self._settings = run_dir, settings
        self.process = self._start("--preset", "laptop")

    def _start(self, *how: str) -> subprocess.Popen[bytes]:
        chosen = [word for setting in self._settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "elign", "train", "--run-dir", str(self.run_dir), *how, *chosen]
        self._started = time.time()
        with (self.run_dir.parent / "chaos.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    @property
    def working(self) -> bool:
        """Whether it has done an iteration since it was started."""
        metrics = self.run_dir / METRICS_FILE
        return not self.dead and metrics.exists() and metrics.stat().st_mtime > self._started

    @property
    def iterations(self) -> int:
        return len(read_metrics(self.run_dir)) if (self.run_dir / METRICS_FILE).exists() else 0

    def resume(self) -> None:
        self.process = self._start("--resume")

    def stop(self) -> None:
        """Let it save and end."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def victims(self, kind: str) -> list[int]:
        if kind == DRIVER:
            return [self.process.pid]
        below = descendants(self.process.pid)
        return [pid for pid, name in below.items() if name.startswith("ray::") and kind in name]


@dataclass(frozen=True)
class Account:
    """What became of the groups, by the run's own files."""

    iterations: int
    issued: int
    uses: Counter[int]
    set_aside: int
    open: int
    rerun: int
    dropped: int

    @classmethod
    def of(cls, run_dir: Path) -> Account:
        checkpoint = load_checkpoint(list_checkpoints(run_dir)[-1])
        # what came after it, the next resumed run does anew
        rows = read_metrics(run_dir)[: checkpoint.completed_iterations]
        plans, uses = checkpoint.plans, Counter[int]()
        for row in rows:
            path = run_dir / "samples" / f"iteration_{int(row['iteration']):06d}.parquet"
            uses.update(set(pq.read_table(path, columns=["group"])["group"].to_pylist()))
        return cls(
            iterations=len(rows),
            issued=plans.next_group,
            uses=uses,
            set_aside=len(read_set_aside(run_dir)),
            open=len(plans.open_groups),
            rerun=int(sum(row["plans_rerun"] for row in rows)),
            dropped=int(sum(row["plans_dropped_stale"] for row in rows)),
        )

    @property
    def lost(self) -> int:
        return self.issued - len(self.uses) - self.set_aside - self.open

    @property
    def used_twice(self) -> int:
        return sum(times > 1 for times in self.uses.values())


def torment(run: Run, minutes: float, kills: int, seed: int) -> Counter[str]:
    """Kill until the time is over; returns how many of each kind."""
    rng, turns = random.Random(seed), cycle(TURNS)
    killed: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(rng.uniform(0, 2 * 60 * minutes / kills))
        if run.dead:
            run.resume()
        if not run.working:
            continue
        victims = run.victims(kind := next(turns))
        if victims and kill(rng.choice(victims)):
            killed[kind] += 1
            print(f"iteration {run.iterations}: killed {kind}", flush=True)
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=25, help="about how many, starting times not deducted")
    parser.add_argument("--lag", type=int, default=0, help="rollout.max_policy_lag")
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, default=None)
    given = parser.parse_args()
    run_dir = given.run_dir or Path(tempfile.mkdtemp(prefix="elign-chaos-")) / "run"
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    more = (f"rollout.max_policy_lag={given.lag}", f"learner.learners={given.learners}")
    run = Run(run_dir, (*SETTINGS, *more))
    killed = torment(run, given.minutes, given.kills, given.seed)
    if run.dead:
        run.resume()
    run.stop()
    account = Account.of(run_dir)
    print(json.dumps({"killed": killed, "iterations": account.iterations}))
    print(f"plans issued      {account.issued}")
    print(f"plans completed   {len(account.uses) + account.dropped}")
    print(f"plans re-run      {account.rerun + account.dropped}")
    print(f"plans used        {len(account.uses)}")
    print(f"plans open        {account.open}")
    print(f"plans set aside   {account.set_aside}")
    print(f"plans lost        {account.lost}")
    print(f"plans used twice  {account.used_twice}")
    sys.exit(account.lost != 0 or account.used_twice != 0)


if __name__ == "__main__":
    main()
