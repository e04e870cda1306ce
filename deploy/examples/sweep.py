"""A sweep under Ray Tune: the weight of the energy channel against the length of the shared prefix.

    python deploy/examples/sweep.py --iterations 20 --storage runs/sweep [--set rollout.num_steps=25]

Each trial is the algorithm of ``elign train``, with a reward server and rollout actors of its own, which
Tune does not count; ``--parallel`` says how many trials run at a time. Tune keeps its results (progress.csv,
TensorBoard) under ``--storage``.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import ray
from ray import tune

from elign.actors.pool import RolloutPool
from elign.common.checkpoint import load_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.learner.fed_grpo import FedGrpo, FedGrpoConfig
from elign.reward_server.reward_actor import start_reward_server


def make_source(config: TrainConfig) -> RolloutPool:
    """In the trial's process: a reward server and a pool, which end with it."""
    spec = load_policy(config.policy.checkpoint).spec
    server = start_reward_server(config.reward, spec.dataset)
    return RolloutPool(spec.model_dump(mode="json"), config, server)


def sweep(
    preset: str,
    overrides: Sequence[str],
    *,
    energy_weights: Sequence[float],
    prefixes: Sequence[float],
    iterations: int,
    parallel: int,
    storage: Path,
) -> tune.ResultGrid:
    """All pairs, each for so many iterations; figures of a trial are in ``result.metrics["elign"]``."""
    configs = [
        load_config(
            preset, None, [*overrides, f"reward.energy_weight={weight}", f"rollout.shared_prefix={prefix}"]
        )
        for weight, prefix in product(energy_weights, prefixes)
    ]
    first = configs[0]
    _start_ray(first, parallel)
    algorithm = FedGrpoConfig().fed_grpo(
        train_config=first, start_policy=first.policy.checkpoint, make_source=make_source
    )
    algorithm.train_config = tune.grid_search(configs)
    tuner = tune.Tuner(
        FedGrpo,
        param_space=algorithm,
        tune_config=tune.TuneConfig(metric="elign/objective", mode="max", max_concurrent_trials=parallel),
        run_config=tune.RunConfig(
            storage_path=str(storage.resolve()), stop={"training_iteration": iterations}, verbose=1
        ),
    )
    return tuner.fit()


def _start_ray(config: TrainConfig, parallel: int) -> None:
    """The cluster of RAY_ADDRESS, or a local one with room for so many trials and what belongs to them."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init()
        return
    actors, reward = config.actors, config.reward
    trial = 1 + actors.max * actors.num_cpus + reward.replicas * reward.num_cpus
    ray.init(num_cpus=math.ceil(parallel * trial), include_dashboard=False, log_to_driver=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--energy-weights", type=float, nargs="+", default=[0.0, 0.05, 0.2])
    parser.add_argument("--prefixes", type=float, nargs="+", default=[0.3, 0.4, 0.5])
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--storage", type=Path, required=True)
    given = parser.parse_args()
    grid = sweep(
        given.preset,
        given.overrides,
        energy_weights=given.energy_weights,
        prefixes=given.prefixes,
        iterations=given.iterations,
        parallel=given.parallel,
        storage=given.storage,
    )
    print("| w_E | shared prefix | RMS force, eV/Å | stable atoms |\n|---:|---:|---:|---:|")
    for result in grid:
        config, figures = result.config["train_config"], result.metrics["elign"]
        print(
            f"| {config.reward.energy_weight:g} | {config.rollout.shared_prefix:g} "
            f"| {figures['rms_force_mean']:.2f} | {figures['atom_stability']:.1%} |"
        )


if __name__ == "__main__":
    main()
