"""What the pool of rollout actors costs: throughput by actors, broadcasts, the driver's work a plan.

    python -m tests.benchmarks.elastic throughput [--seconds 0.5]
    python -m tests.benchmarks.elastic broadcast
    python -m tests.benchmarks.elastic driver

Where cores lack, denoising is simulated by sleeping, so that actors do not wait for a core. ``driver`` gives
the driver's processor time a plan, and from it how many actors one driver can keep busy.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray

import elign.actors.pool
from elign.actors.pool import RolloutPool
from elign.actors.rollout_actor import PublishedWeights, RolloutActor, Sampled
from elign.common.config import TrainConfig
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan
from tests.actors import fake_reward_server
from tests.actors.fake_reward_server import start_fake_reward_server

# Ray's workers cannot import the benchmarks, so these modules travel as they are
for module in (sys.modules[__name__], fake_reward_server):
    ray.cloudpickle.register_pickle_by_value(module)

SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})
SETTINGS = {"rollout": {"num_steps": 6, "samples_per_group": 16}, "reward": {"energy_weight": 0.0}}


class SleepingActor(RolloutActor):
    """Takes ``delay_s`` for every plan, nearly all of it asleep."""

    delay_s = 0.0

    def sample(self, plan: RolloutPlan, weights: PublishedWeights, reward_server: Any) -> Sampled:
        end = time.monotonic() + self.delay_s
        sampled = super().sample(plan, weights, reward_server)
        time.sleep(max(end - time.monotonic(), 0))
        return sampled


@contextmanager
def sleeping_pool(actors: int, delay_s: float) -> Iterator[RolloutPool]:
    """A pool of such actors, all of them up."""

    def start(spec: Any, rollout: Any, reward: Any, _: Any) -> Any:
        kind = type("Sleeping", (SleepingActor,), {"delay_s": delay_s})
        return ray.remote(kind).options(num_cpus=0).remote(spec, rollout, reward, TrainConfig().actors)

    original = elign.actors.pool.start_rollout_actor
    elign.actors.pool.start_rollout_actor = start
    config = TrainConfig.model_validate({**SETTINGS, "actors": {"max": actors}})
    pool = RolloutPool(SPEC.model_dump(mode="json"), config, start_fake_reward_server())
    try:
        pool.publish(DiffusionPolicy(SPEC).state_dict(), version=0)
        pool.wait_until_up()
        run(pool, actors, first=10_000_000)  # each actor has fetched the weights
        yield pool
    finally:
        pool.stop()
        elign.actors.pool.start_rollout_actor = original


def run(pool: RolloutPool, number: int, first: int = 0) -> float:
    """Seconds for so many plans."""
    began = time.perf_counter()
    pool.submit([RolloutPlan(first + i, num_atoms=4, num_samples=16, seed=i) for i in range(number)])
    pool.take(number)
    return time.perf_counter() - began


def throughput(delay_s: float) -> None:
    """Plans a second against what as many sleepers could do at best."""
    print(f"| actors | plans/s | of ideal (1/{delay_s:g} s each) |\n|---:|---:|---:|")
    for actors in (1, 2, 4, 8):
        with sleeping_pool(actors, delay_s) as pool:
            plans = 10 * actors
            rate = plans / run(pool, plans)
        print(f"| {actors} | {rate:.2f} | {rate * delay_s / actors:.1%} |", flush=True)


def broadcast() -> None:
    """Seconds from publishing new weights until every actor has them, as arrays of its own process.

    The actors only fetch: sixty-four with a policy each would not fit into a small machine.
    """
    print("| actors | weights, MB | publish, ms | until all have them, ms |\n|---:|---:|---:|---:|")
    for number in (1, 4, 16, 64):
        actors = [Fetcher.options(num_cpus=0).remote() for _ in range(number)]
        ray.get([actor.fetch.remote([ray.put({})]) for actor in actors])
        for megabytes in (1, 20, 80):
            weights = {"ballast": np.zeros(megabytes * 250_000, dtype=np.float32)}
            began = time.perf_counter()
            reference = ray.put(weights)
            put = time.perf_counter() - began
            ray.get([actor.fetch.remote([reference]) for actor in actors])
            done = time.perf_counter() - began
            print(f"| {number} | {megabytes} | {1000 * put:.1f} | {1000 * done:.1f} |", flush=True)
            del reference
        for actor in actors:
            ray.kill(actor)


@ray.remote
class Fetcher:
    """Gets weights as a rollout actor does."""

    def fetch(self, reference: list[Any]) -> int:
        return sum(array.copy().nbytes for array in ray.get(reference[0]).values())


def driver() -> None:
    """Processor time of the driver for one plan, with actors that do next to nothing."""
    with sleeping_pool(4, 0.0) as pool:
        plans = 400
        before = time.process_time()
        seconds = run(pool, plans)
        cost = (time.process_time() - before) / plans
    print(f"{plans} plans in {seconds:.2f} s; {1000 * cost:.2f} ms of the driver's processor time a plan")
    for actors in (100, 1000):
        print(f"{actors} actors keep one driver busy when a plan takes them less than {actors * cost:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("throughput", "broadcast", "driver"))
    parser.add_argument("--seconds", type=float, default=0.5, help="simulated time of a plan")
    given = parser.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=f"/tmp/elign-{os.getpid()}")
    if given.what == "throughput":
        throughput(given.seconds)
    elif given.what == "broadcast":
        broadcast()
    else:
        driver()
    ray.shutdown()


if __name__ == "__main__":
    main()
