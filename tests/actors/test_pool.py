"""The pool on a real local Ray: order, deaths, failures, interruption."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from elign.actors.pool import RolloutPool
from elign.common.config import RewardSettings, RolloutSettings
from elign.common.errors import RolloutError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan
from tests.actors.fake_reward_server import start_fake_reward_server

SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})
REWARD = RewardSettings(energy_weight=0.0)


@pytest.fixture(scope="module")
def server() -> Iterator[object]:
    folder = Path("/tmp") / f"elign-ray-{os.getpid()}"  # short: Ray's sockets have a length limit
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    yield start_fake_reward_server()
    ray.shutdown()


def make_pool(server: object, **overrides: object) -> RolloutPool:
    ray.get(server.set.remote(0.0, None))  # type: ignore[attr-defined]
    settings = {"num_steps": 6, "samples_per_group": 2, "groups": 4, "actors": 2} | overrides
    rollout = RolloutSettings.model_validate(settings)
    torch.manual_seed(0)
    pool = RolloutPool(SPEC.model_dump(mode="json"), rollout, REWARD, server)
    pool.publish(DiffusionPolicy(SPEC).state_dict(), version=7)
    return pool


def plans(number: int) -> list[RolloutPlan]:
    return [RolloutPlan(group_id=g, num_atoms=4, num_samples=2, seed=g) for g in range(number)]


def test_every_plan_once_in_order_whatever_the_number_of_actors(server: object) -> None:
    results = []
    for actors in (1, 3):
        pool = make_pool(server, actors=actors)
        results.append(pool.collect(plans(5)[::-1]).scored)
        pool.stop()
    for one, three in zip(*results, strict=True):
        assert one.trajectory.plan == three.trajectory.plan
        assert one.trajectory.policy_version == 7
        assert torch.equal(one.trajectory.z, three.trajectory.z)
        assert torch.equal(one.trajectory.log_prob, three.trajectory.log_prob)
    assert [s.trajectory.plan.group_id for s in results[0]] == [0, 1, 2, 3, 4]


def test_killed_actor_costs_no_plan_and_is_counted(server: object) -> None:
    pool = make_pool(server)
    victim = pool.process_ids()[0]
    ray.get(server.set.remote(0.7, None))  # type: ignore[attr-defined]
    killed: list[int] = []

    def kill_once() -> bool:
        if not killed and time.monotonic() > begin + 0.5:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        return False

    pool._should_stop = kill_once
    begin = time.monotonic()
    collection = pool.collect(plans(6))
    assert killed
    assert collection.plans_rerun >= 1
    assert [s.trajectory.plan.group_id for s in collection.scored] == list(range(6))
    again = pool.collect(plans(2))
    assert again.plans_rerun == 0
    assert victim not in pool.process_ids()
    pool.stop()


def test_plan_that_always_fails_ends_the_run_with_its_causes(server: object) -> None:
    pool = make_pool(server, max_tries=2)
    ray.get(server.set.remote(0.0, 1))  # type: ignore[attr-defined]
    with pytest.raises(
        RolloutError, match=r"group 1 .*max_tries = 2 times.*no reward today.*no reward today"
    ):
        pool.collect(plans(3))
    pool.stop()


def test_slow_plan_is_taken_away_from_its_actor(server: object) -> None:
    pool = make_pool(server, actors=1, plan_timeout_s=1.5, max_tries=1)
    pool.process_ids()
    ray.get(server.set.remote(60.0, None))  # type: ignore[attr-defined]
    with pytest.raises(RolloutError, match=r"no answer within rollout\.plan_timeout_s = 1\.5 s"):
        pool.collect(plans(1))
    pool.stop()


def test_stop_request_ends_the_wait(server: object) -> None:
    pool = make_pool(server)
    pool._should_stop = lambda: True
    with pytest.raises(KeyboardInterrupt):
        pool.collect(plans(2))
    pool.stop()
