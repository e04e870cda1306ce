"""How idle the learner is where sampling is the longer part, in turns and ahead.

    python -m tests.benchmarks.idle_learner [--ratio 1.8] [--iterations 8]

The learner is real: the shipped policy, half of the laptop preset's groups. The actors would need more cores
than it leaves, so they replay one trajectory each and sleep, for ``ratio`` times as long as an update takes;
there are as many as groups are under way. The time of an update is measured first, in turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import ray

from elign.actors.rollout import reward_query, roll_out
from elign.actors.rollout_actor import PublishedWeights, RolloutActor, Sampled
from elign.common.checkpoint import load_policy, save_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.policy import DiffusionPolicy
from elign.common.rollout import RolloutPlan, Trajectory
from elign.launch import assembled
from tests.benchmarks.elastic import sleeping_actors

# Ray's workers cannot import the benchmarks, so this module travels as it is
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

GROUPS = 4
NUM_ATOMS = 18


class ReplayingActor(RolloutActor):
    """Samples once; afterwards each plan takes ``delay_s``, nearly all of it asleep."""

    delay_s = 0.0
    _known: Trajectory | None = None

    def sample(self, plan: RolloutPlan, weights: PublishedWeights, reward_server: Any) -> Sampled:
        end = time.monotonic() + self.delay_s
        self._use(weights)
        if self._known is None:
            self._known = roll_out(self._policy, plan, self._rollout, self._reward, policy_version=0)
        trajectory = replace(self._known, plan=plan, policy_version=weights.version)
        rewards = reward_server.score.remote(reward_query(trajectory), caller=self._name)
        time.sleep(max(end - time.monotonic(), 0))
        return Sampled(trajectory, [rewards], {"sampling": self.delay_s, "sampling_cpu": 0.0})


def one_size(folder: Path) -> Path:
    """The shipped policy, for molecules of one size alone."""
    shipped = load_policy("elign-qm9-small")
    policy = DiffusionPolicy(shipped.spec.model_copy(update={"size_histogram": {NUM_ATOMS: 1}}))
    policy.load_state_dict(shipped.state_dict())
    save_policy(policy, folder)
    return folder


def run(policy: Path, lag: int, delay_s: float, iterations: int) -> list[dict[str, float]]:
    """Metrics of the iterations at which every actor is up and the pipeline is full."""
    config: TrainConfig = load_config(
        "laptop",
        None,
        [
            f"rollout.groups={GROUPS}",
            f"rollout.max_policy_lag={lag}",
            f"actors.max={GROUPS * (1 + lag)}",
            # groups are asked for only as far ahead as there are iterations to come
            f"run.iterations={2 * lag + 2 + iterations + lag}",
        ],
    )
    with sleeping_actors(ReplayingActor, delay_s), assembled(config, policy) as parts:
        parts.pool.wait_until_up()
        rows = []
        for _ in range(2 * lag + 2 + iterations):
            parts.algorithm.train()
            rows.append(dict(parts.algorithm.iteration_metrics))
    return rows[-iterations:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ratio", type=float, default=1.8, help="of sampling a group to an update")
    parser.add_argument("--iterations", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        policy = one_size(Path(folder))
        update_s = median(row["time_update_s"] for row in run(policy, 0, 0.0, given.iterations))
        delay_s = given.ratio * update_s
        print(f"an update takes {update_s:.2f} s, a group {delay_s:.2f} s\n")
        print("| max_policy_lag | actors | seconds an iteration | learner idle | mean lag |")
        print("|---:|---:|---:|---:|---:|")
        for lag in (0, 1, 2):
            rows = run(policy, lag, delay_s, given.iterations)
            seconds, idle, mean_lag = (
                mean(row[name] for row in rows)
                for name in ("time_iteration_s", "idle_share_learner", "policy_lag_mean")
            )
            print(
                f"| {lag} | {GROUPS * (1 + lag)} | {seconds:.2f} | {idle:.0%} | {mean_lag:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
