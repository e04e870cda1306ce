"""What the pool of rollout actors costs: throughput by actors, broadcasts, what a thousand would wait for.

    python -m tests.benchmarks.elastic throughput [--seconds 0.5]
    python -m tests.benchmarks.elastic broadcast
    python -m tests.benchmarks.elastic limits

Where cores lack, denoising is simulated by sleeping, so that actors do not wait for a core. ``limits``
measures what a plan of the laptop preset costs an actor, the driver, the reward server and the object store,
and how many actors would keep each of these busy.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import ray
import torch

import elign.actors.pool
from elign.actors.pool import RolloutPool
from elign.actors.rollout import reward_query, roll_out
from elign.actors.rollout_actor import PublishedWeights, RolloutActor, Sampled
from elign.common.checkpoint import load_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan, Trajectory
from elign.reward_server.registry import load_force_field
from tests.actors import fake_reward_server
from tests.actors.fake_reward_server import start_fake_reward_server

# Ray's workers cannot import the benchmarks, so these modules travel as they are
for module in (sys.modules[__name__], fake_reward_server):
    ray.cloudpickle.register_pickle_by_value(module)

SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})
SETTINGS: dict[str, dict[str, Any]] = {
    "rollout": {"num_steps": 6, "samples_per_group": 16},
    "reward": {"energy_weight": 0.0},
}
LAPTOP = load_config("laptop", None, [])
PLAN = RolloutPlan(0, num_atoms=18, num_samples=LAPTOP.rollout.samples_per_group, seed=0)


class SleepingActor(RolloutActor):
    """Takes ``delay_s`` for every plan, nearly all of it asleep."""

    delay_s = 0.0

    def sample(self, plan: RolloutPlan, weights: PublishedWeights, reward_server: Any) -> Sampled:
        end = time.monotonic() + self.delay_s
        sampled = super().sample(plan, weights, reward_server)
        time.sleep(max(end - time.monotonic(), 0))
        return sampled


@contextmanager
def sleeping_actors(kind: type[RolloutActor], delay_s: float) -> Iterator[None]:
    """Within, pools start actors of this kind with that ``delay_s``, for which Ray needs no CPU."""

    def start(spec: Any, rollout: Any, reward: Any, actors: Any) -> Any:
        sleeping = type(kind.__name__, (kind,), {"delay_s": delay_s})
        return ray.remote(sleeping).options(num_cpus=0).remote(spec, rollout, reward, actors)

    with patch.object(elign.actors.pool, "start_rollout_actor", start):
        yield


@contextmanager
def sleeping_pool(
    actors: int, delay_s: float, rollout: dict[str, Any] = SETTINGS["rollout"]
) -> Iterator[RolloutPool]:
    """A pool of such actors, all of them up."""
    config = TrainConfig.model_validate({**SETTINGS, "rollout": rollout, "actors": {"max": actors}})
    with sleeping_actors(SleepingActor, delay_s):
        pool = RolloutPool(SPEC.model_dump(mode="json"), config, start_fake_reward_server())
        try:
            pool.publish(DiffusionPolicy(SPEC).state_dict(), version=0)
            pool.wait_until_up()
            run(pool, actors, first=10_000_000)  # each actor has fetched the weights
            yield pool
        finally:
            pool.stop()


def run(pool: RolloutPool, number: int, first: int = 0, num_atoms: int = 4) -> float:
    """Seconds for so many plans."""
    began = time.perf_counter()
    pool.submit([RolloutPlan(first + i, num_atoms=num_atoms, num_samples=16, seed=i) for i in range(number)])
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


def limits() -> None:
    """Each by itself, on one core: then how many actors would keep it busy."""
    torch.set_num_threads(1)
    trajectory, actor_s = one_plan()
    driver_s = driver_seconds(plans=100)
    query = reward_query(trajectory)
    judged = Molecules.cat([query.molecules, query.predicted])
    field = load_force_field("elign-mace-small", device="cpu")
    reward_s = best_of(lambda: field.evaluate(judged))
    store_s = best_of(lambda: ray.get(ray.put(trajectory)))
    megabytes = len(ray.cloudpickle.dumps(trajectory, protocol=5)) / 1e6
    print(f"a plan: {PLAN.num_samples} samples of {PLAN.num_atoms} atoms, {actor_s:.2f} s of one core\n")
    print("| what a plan passes through | ms a plan | actors that keep it busy |\n|---|---:|---:|")
    for name, seconds in (
        ("reward server: a replica on one core", reward_s),
        ("driver, processor time", driver_s),
        (f"object store: {megabytes:.1f} MB in and out", store_s),
    ):
        print(f"| {name} | {1000 * seconds:.2f} | {actor_s / seconds:.0f} |")
    print(f"\na thousand actors need {1000 * reward_s / actor_s:.0f} such replicas, ", end="")
    print(f"{1000 * driver_s / actor_s:.1f} of such drivers, {1000 * megabytes / actor_s:.0f} MB/s")


def one_plan() -> tuple[Trajectory, float]:
    """A plan of the laptop preset, sampled by the shipped policy, and the processor time that takes, s."""
    policy = load_policy("elign-qm9-small")

    def sample() -> Trajectory:
        return roll_out(policy, PLAN, LAPTOP.rollout, LAPTOP.reward, policy_version=0)

    return sample(), best_of(sample, times=3, clock=time.process_time)


def driver_seconds(plans: int) -> float:
    """Processor time of the driver for a plan of the laptop preset's size, by actors with a tiny network."""
    with sleeping_pool(2, 0.0, LAPTOP.rollout.model_dump()) as pool:
        before = time.process_time()
        run(pool, plans, num_atoms=PLAN.num_atoms)
        return (time.process_time() - before) / plans


def best_of(
    work: Callable[[], object], times: int = 20, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the quickest time."""
    seconds = []
    for _ in range(times):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("throughput", "broadcast", "limits"))
    parser.add_argument("--seconds", type=float, default=0.5, help="simulated time of a plan")
    given = parser.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=f"/tmp/elign-{os.getpid()}")
    if given.what == "throughput":
        throughput(given.seconds)
    elif given.what == "broadcast":
        broadcast()
    else:
        limits()
    ray.shutdown()


if __name__ == "__main__":
    main()
