"""The pool on a real local Ray: order, deaths, hanging actors, failures, scaling, interruption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from elign.actors.pool import RolloutPool
from elign.common.config import TrainConfig
from elign.common.errors import RolloutError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.pool_status import PoolStatus
from elign.common.rollout import Collection, RolloutPlan
from tests.actors.fake_reward_server import start_fake_reward_server

MakePool = Callable[..., RolloutPool]
SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})


class Control:
    """Wants what it is told to want, and lets a test wait for a status."""

    def __init__(self) -> None:
        self.wanted: int | None = None
        self._told = threading.Condition()
        self._last: PoolStatus | None = None

    def wanted_actors(self) -> int | None:
        return self.wanted

    def report(self, status: PoolStatus) -> None:
        with self._told:
            self._last = status
            self._told.notify_all()

    def wait_for(self, fits: Callable[[PoolStatus], bool]) -> PoolStatus:
        with self._told:
            assert self._told.wait_for(lambda: self._last is not None and fits(self._last), timeout=500)
            assert self._last is not None
            return self._last


def states(status: PoolStatus) -> list[str]:
    return sorted(actor.state for actor in status.actors)


def process_ids(status: PoolStatus) -> list[int]:
    return [actor.process_id for actor in status.actors if actor.process_id is not None]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    folder = Path("/tmp") / f"elign-ray-{os.getpid()}"  # short: Ray's sockets have a length limit
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    yield start_fake_reward_server()
    ray.shutdown()


@pytest.fixture
def make_pool(server: Any) -> Iterator[MakePool]:
    made: list[RolloutPool] = []

    def make(control: Control | None = None, **actors: object) -> RolloutPool:
        ray.get(server.set.remote(0.0, None))
        rollout = {"num_steps": 6, "samples_per_group": 2, "groups": 4}
        settings = {"rollout": rollout, "actors": actors, "reward": {"energy_weight": 0.0}}
        config = TrainConfig.model_validate(settings)
        pool = RolloutPool(SPEC.model_dump(mode="json"), config, server, control=control)
        made.append(pool)
        torch.manual_seed(0)
        pool.publish(DiffusionPolicy(SPEC).state_dict(), version=7)
        return pool

    yield make
    for pool in made:
        pool.stop()


def plans(number: int, first: int = 0) -> list[RolloutPlan]:
    return [RolloutPlan(group_id=g, num_atoms=4, num_samples=2, seed=g) for g in range(first, first + number)]


def collect(pool: RolloutPool, wanted: list[RolloutPlan]) -> Collection:
    pool.submit(wanted)
    return pool.take(len(wanted))


def groups(collection: Collection) -> list[int]:
    return [s.trajectory.plan.group_id for s in collection.scored]


def test_every_plan_once_in_order_whatever_the_number_of_actors(
    make_pool: Callable[..., RolloutPool],
) -> None:
    results = [collect(make_pool(max=actors), plans(5)[::-1]) for actors in (1, 3)]
    for one, three in zip(results[0].scored, results[1].scored, strict=True):
        assert one.trajectory.plan == three.trajectory.plan
        assert one.trajectory.policy_version == 7
        assert torch.equal(one.trajectory.z, three.trajectory.z)
        assert torch.equal(one.trajectory.log_prob, three.trajectory.log_prob)
    assert groups(results[0]) == groups(results[1]) == [0, 1, 2, 3, 4]


def test_actor_killed_while_it_samples_costs_no_plan_and_is_replaced(make_pool: MakePool) -> None:
    control = Control()
    pool = make_pool(control, max=2)
    victim = process_ids(control.wait_for(lambda s: states(s) == ["up", "up"]))[0]
    os.kill(victim, signal.SIGSTOP)  # so that it is surely in the middle of its plan
    pool.submit(plans(8))
    control.wait_for(lambda s: any(a.process_id == victim and a.group is not None for a in s.actors))
    os.kill(victim, signal.SIGKILL)
    collection = pool.take(8)
    assert groups(collection) == list(range(8))
    assert collection.plans_rerun == 1
    control.wait_for(lambda s: states(s) == ["up", "up"] and victim not in process_ids(s))
    assert collect(pool, plans(2, first=8)).plans_rerun == 0


def test_actors_killed_before_their_rewards_came_cost_no_plan(make_pool: MakePool, server: Any) -> None:
    control = Control()
    pool = make_pool(control, max=2)
    victims = process_ids(control.wait_for(lambda s: states(s) == ["up", "up"]))
    ray.get(server.hold.remote())
    pool.submit(plans(4))
    control.wait_for(
        lambda s: s.issued == 4 and s.waiting == 0 and all(actor.group is None for actor in s.actors)
    )
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    control.wait_for(lambda s: states(s) == ["up", "up"] and not {*victims} & {*process_ids(s)})
    ray.get(server.release.remote())
    collection = pool.take(4)
    assert groups(collection) == [0, 1, 2, 3]
    assert collection.plans_rerun >= 4  # more where one went to the other victim before that was known dead
    assert collection.set_aside == ()


def test_hanging_actor_is_ended_and_its_plan_goes_to_another(make_pool: MakePool) -> None:
    control = Control()
    pool = make_pool(control, max=1, plan_timeout_s=8.0)
    (victim,) = process_ids(control.wait_for(lambda s: states(s) == ["up"]))
    os.kill(victim, signal.SIGSTOP)
    collection = collect(pool, plans(2))
    assert groups(collection) == [0, 1]
    assert collection.plans_rerun >= 1
    assert victim not in process_ids(pool.status())


def test_plan_that_always_fails_is_set_aside_with_its_causes(make_pool: MakePool, server: Any) -> None:
    pool = make_pool(max_tries=2)
    ray.get(server.set.remote(0.0, 1))
    collection = collect(pool, plans(3))
    assert groups(collection) == [0, 2]
    (given_up,) = collection.set_aside
    assert given_up.plan.group_id == 1
    assert given_up.causes == ("ValueError: no reward today",) * 2
    assert collection.plans_rerun == 1


def test_pool_grows_and_shrinks_while_plans_run(make_pool: MakePool, server: Any) -> None:
    control = Control()
    pool = make_pool(control, min=1, max=3)
    control.wait_for(lambda s: states(s) == ["up", "up", "up"])
    ray.get(server.set.remote(0.2, None))
    pool.submit(plans(12))
    control.wanted = 1
    control.wait_for(lambda s: states(s) == ["up"])
    control.wanted = 2
    control.wait_for(lambda s: states(s) == ["up", "up"])
    control.wanted = 99
    assert control.wait_for(lambda s: states(s) == ["up", "up", "up"]).target == 3
    assert groups(pool.take(12)) == list(range(12))
    counts = pool.status()
    assert (counts.issued, counts.completed, counts.rerun, counts.set_aside) == (12, 12, 0, 0)


def test_actors_without_room_wait_and_hold_up_nobody(make_pool: MakePool) -> None:
    pool = make_pool(max=6)  # of 4 CPUs
    assert groups(collect(pool, plans(4))) == [0, 1, 2, 3]
    assert states(pool.status()).count("starting") >= 2


def test_actors_sample_on_while_the_reward_server_thinks(make_pool: MakePool, server: Any) -> None:
    control = Control()
    pool = make_pool(control, max=1)
    control.wait_for(lambda s: states(s) == ["up"])
    ray.get(server.hold.remote())
    pool.submit(plans(3))
    control.wait_for(lambda s: s.issued == 3 and s.waiting == 0 and s.actors[0].group is None)
    assert pool.status().completed == 0
    ray.get(server.release.remote())
    assert groups(pool.take(3)) == [0, 1, 2]


def test_actor_that_cannot_be_built_ends_the_run_with_the_cause(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elign.actors.roster.START_TRIES", 2)
    pool = RolloutPool({"hidden": "wrong"}, TrainConfig(), server)
    pool.publish({}, 0)
    with pytest.raises(RolloutError, match=r"no rollout actor can be started.*2 tries"):
        collect(pool, plans(1))
    pool.stop()


def test_stop_request_ends_the_wait(make_pool: MakePool) -> None:
    pool = make_pool()
    pool._should_stop = lambda: True
    with pytest.raises(KeyboardInterrupt):
        collect(pool, plans(2))
