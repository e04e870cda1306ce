"""The pool on a cluster of several nodes, all on this machine: nodes join, drain and vanish."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from elign.actors.pool import RolloutPool
from elign.common.config import TrainConfig
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.pool_status import PoolStatus
from tests.actors.fake_reward_server import start_fake_reward_server
from tests.actors.test_pool import Control, groups, plans, states

SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = f"/tmp/elign-nodes-{os.getpid()}"  # short: Ray's sockets have a length limit
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder})
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def server(cluster: Cluster) -> Any:  # noqa: ARG001
    return start_fake_reward_server()


@pytest.fixture
def control() -> Control:
    return Control()


@contextmanager
def pool_of_two(server: Any, control: Control) -> Iterator[RolloutPool]:
    rollout = {"num_steps": 6, "samples_per_group": 2}
    config = TrainConfig.model_validate({"rollout": rollout, "actors": {"max": 2}})
    pool = RolloutPool(SPEC.model_dump(mode="json"), config, server, control=control)
    torch.manual_seed(0)
    pool.publish(DiffusionPolicy(SPEC).state_dict(), version=0)
    try:
        yield pool
    finally:
        pool.stop()


@pytest.fixture
def pool(server: Any, control: Control) -> Iterator[RolloutPool]:
    with pool_of_two(server, control) as pool:
        yield pool


def nodes(status: PoolStatus) -> set[str | None]:
    return {actor.node_id for actor in status.actors if actor.state == "up"}


def test_pool_follows_nodes_that_join_and_vanish(
    cluster: Cluster, pool: RolloutPool, control: Control
) -> None:
    head = nodes(control.wait_for(lambda s: states(s) == ["starting", "up"]))
    pool.submit(plans(3))
    assert groups(pool.take(3)) == [0, 1, 2]
    node = cluster.add_node(num_cpus=1)
    assert nodes(control.wait_for(lambda s: states(s) == ["up", "up"])) == {*head, node.node_id}
    pool.submit(plans(6, first=3))
    cluster.remove_node(node, allow_graceful=False)
    collection = pool.take(6)
    assert groups(collection) == list(range(3, 9))
    assert collection.set_aside == ()
    assert nodes(control.wait_for(lambda s: states(s) == ["starting", "up"])) == head


def test_node_that_drains_is_left_after_the_work_in_hand(
    cluster: Cluster, pool: RolloutPool, control: Control, server: Any
) -> None:
    control.wait_for(lambda s: states(s) == ["starting", "up"])
    node = cluster.add_node(num_cpus=1)
    control.wait_for(lambda s: states(s) == ["up", "up"])
    ray.get(server.hold.remote())
    pool.submit(plans(4))
    control.wait_for(lambda s: s.issued == 4 and s.waiting == 0 and all(a.group is None for a in s.actors))
    drain(cluster, node.node_id)
    # its rewards are still to come, so it stays; the one in its place finds no room yet
    control.wait_for(lambda s: states(s) == ["draining", "starting", "up"])
    cluster.add_node(num_cpus=1)
    control.wait_for(lambda s: states(s) == ["draining", "up", "up"])
    ray.get(server.release.remote())
    collection = pool.take(4)
    assert groups(collection) == [0, 1, 2, 3]
    assert collection.plans_rerun == 0
    assert node.node_id not in nodes(control.wait_for(lambda s: states(s) == ["up", "up"]))


def drain(cluster: Cluster, node_id: str) -> None:
    """What a cloud's notice of preemption does."""
    ray_command = Path(sys.executable).with_name("ray")
    arguments = ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    deadline = ["--reason-message", "preempted", "--deadline-remaining-seconds", "600"]
    command = [str(ray_command), "drain-node", "--address", cluster.address, *arguments, *deadline]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
