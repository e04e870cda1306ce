"""The pool when a node lives on but cannot be reached: a network namespace whose link is taken down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from elign.actors.pool import RolloutPool
from tests.actors.fake_reward_server import start_fake_reward_server
from tests.actors.test_pool import Control, groups, plans, states
from tests.actors.test_pool_nodes import pool_of_two

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HERE, THERE = "10.231.77.1", "10.231.77.2"
# a node that is silent for so long is given up; Ray's own values would take a minute
IMPATIENT = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Link:
    """Between this network and a namespace of its own."""

    namespace: str
    device: str

    def cut(self) -> None:
        ip("link", "set", self.device, "down")


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link(f"elign{os.getpid()}", f"el{os.getpid()}")
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip")
    try:
        ip("netns", "add", link.namespace)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    inner = f"{link.device}n"
    try:
        ip("link", "add", link.device, "type", "veth", "peer", "name", inner, "netns", link.namespace)
        ip("addr", "add", f"{HERE}/24", "dev", link.device)
        ip("link", "set", link.device, "up")
        for words in (("addr", "add", f"{THERE}/24", "dev", inner), ("link", "set", inner, "up")):
            ip("-n", link.namespace, *words)
        ip("-n", link.namespace, "link", "set", "lo", "up")
        yield link
    finally:
        ip("netns", "del", link.namespace)


@pytest.fixture
def cluster(link: Link, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:  # noqa: ARG001
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)
    folder = f"/tmp/elign-part-{os.getpid()}"
    head = {"num_cpus": 1, "temp_dir": folder, "node_ip_address": HERE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False, _node_ip_address=HERE)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def node_there(cluster: Cluster, link: Link, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node behind the link."""
    command = ["ip", "netns", "exec", link.namespace, sys.executable, "-m", "ray.scripts.scripts", "start"]
    command += [f"--address={cluster.address}", f"--node-ip-address={THERE}", "--num-cpus=1", "--block"]
    command += [f"--temp-dir=/tmp/elign-there-{os.getpid()}"]
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen(command, stdout=log, stderr=log)
    yield node
    node.terminate()
    node.wait(60)


@pytest.mark.usefixtures("cluster", "node_there")
def test_what_an_unreachable_node_had_is_sampled_again_and_used_once(link: Link) -> None:
    server: Any = start_fake_reward_server()
    control = Control()
    with pool_of_two(server, control) as pool:
        _cut_off(pool, server, control, link)


def _cut_off(pool: RolloutPool, server: Any, control: Control, link: Link) -> None:
    control.wait_for(lambda s: states(s) == ["up", "up"])
    head = ray.get_runtime_context().get_node_id()
    ray.get(server.hold.remote())
    pool.submit(plans(4))
    control.wait_for(lambda s: s.issued == 4 and s.waiting == 0 and all(a.group is None for a in s.actors))
    link.cut()
    ray.get(server.release.remote())
    collection = pool.take(4)
    assert groups(collection) == [0, 1, 2, 3]
    assert collection.plans_rerun > 0
    assert collection.set_aside == ()
    told = control.wait_for(lambda s: states(s) == ["starting", "up"])
    assert {actor.node_id for actor in told.actors if actor.state == "up"} == {head}
    pool.submit(plans(2, first=4))
    assert groups(pool.take(2)) == [4, 5]
