"""What Ray costs: iterations of the laptop preset on Ray against the same computation in one process.

    python -m tests.benchmarks.shell_overhead [--iterations 4] [--core 0]

All processes of both ways share one core, so that nothing is hidden by working at the same time, and one
actor samples. Both ways take turns, twice; each gives its median iteration. They must come to the same
rewards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from elign.actors.rollout import reward_query, roll_out
from elign.common.checkpoint import load_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.process_memory import keep_freed_memory
from elign.common.rollout import Collection, RolloutPlan, ScoredTrajectory
from elign.launch import assembled, build_algorithm
from elign.learner.fed_grpo import FedGrpo
from elign.learner.run_directory import RunDirectory
from elign.reward_server.replica_actor import RewardReplica

ROUNDS = 2


class InThisProcess:
    """A source of rollouts that samples and judges one plan after the other, here."""

    def __init__(self, config: TrainConfig, start: Path) -> None:
        self._config = config
        self._policy = load_policy(start)
        self._replica = RewardReplica(config.reward, self._policy.spec.dataset)
        self._loop = asyncio.new_event_loop()
        self._version = 0
        self._plans: list[RolloutPlan] = []

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        self._policy.load_state_dict(dict(weights))
        self._version = version

    def submit(self, plans: Sequence[RolloutPlan]) -> None:
        self._plans += plans

    def take(self, number: int) -> Collection:
        taken, self._plans = self._plans[:number], self._plans[number:]
        return Collection([self._scored(plan) for plan in taken], plans_rerun=0)

    def forget(self) -> None:
        self._plans = []

    def stop(self) -> None:
        self._loop.close()

    def _scored(self, plan: RolloutPlan) -> ScoredTrajectory:
        rollout, reward = self._config.rollout, self._config.reward
        trajectory = roll_out(self._policy, plan, rollout, reward, policy_version=self._version)
        rewards = self._loop.run_until_complete(self._replica.score(reward_query(trajectory)))
        return ScoredTrajectory(trajectory, rewards, {"sampling": 0.0, "sampling_cpu": 0.0})


def timed(algorithm: FedGrpo, iterations: int) -> tuple[list[float], float]:
    """(seconds of each iteration after the first, the last one's objective)."""
    algorithm.train()
    seconds = []
    for _ in range(iterations):
        begin = time.perf_counter()
        algorithm.train()
        seconds.append(time.perf_counter() - begin)
    return seconds, algorithm.iteration_metrics["objective"]


def on_ray(config: TrainConfig, start: Path, iterations: int) -> tuple[list[float], float]:
    with assembled(config, start) as parts:
        return timed(parts.algorithm, iterations)


def in_one_process(config: TrainConfig, start: Path, iterations: int) -> tuple[list[float], float]:
    algorithm = build_algorithm(config, start, lambda config: InThisProcess(config, start))
    try:
        return timed(algorithm, iterations)
    finally:
        algorithm.stop()


WAYS = {"in one process": in_one_process, "on Ray": on_ray}


def measure(way: str, iterations: int) -> None:
    """In a process of its own, since Ray starts once: prints seconds and the objective as JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()
    config = load_config("laptop", None, ["actors.max=1", "run.iterations=100"])
    with tempfile.TemporaryDirectory(prefix="elign-shell-") as folder:
        start = RunDirectory(Path(folder) / "run", config, resume=False).start
        print(json.dumps(WAYS[way](config, start, iterations)))


def measured(way: str, iterations: int) -> tuple[list[float], float]:
    command = [sys.executable, "-m", "tests.benchmarks.shell_overhead", "--way", way]
    done = subprocess.run(
        [*command, "--iterations", str(iterations)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, objective = json.loads(done.stdout.splitlines()[-1])
    return seconds, objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=4, help="of each round, after one to warm up")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, help="print this one's figures alone, as JSON")
    given = parser.parse_args()
    if given.way:
        measure(given.way, given.iterations)
        return
    os.sched_setaffinity(0, {given.core})
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    objectives = set()
    for _ in range(ROUNDS):
        for way in WAYS:
            found, objective = measured(way, given.iterations)
            seconds[way] += found
            objectives.add(objective)
    if len(objectives) != 1:
        sys.exit(f"the two ways differ: {objectives}")
    bare, ray = (median(values) for values in seconds.values())
    print(f"one core of {platform.machine()}, {len(seconds['on Ray'])} iterations each way\n")
    print("| way | seconds an iteration |\n|---|---:|")
    print(f"| in one process | {bare:.2f} |\n| on Ray | {ray:.2f} |")
    print(f"| overhead | {100 * (ray / bare - 1):.1f} % |")


if __name__ == "__main__":
    main()
