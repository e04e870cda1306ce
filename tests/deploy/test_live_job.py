"""A run on a cluster that lacks Elign: it brings its own, and is scaled, drained and stopped while it lives.

Minutes on a busy machine.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elign.common.errors import ConfigError
from elign.jobs.connection import Connection, connect
from elign.jobs.drain import Node, _actors_on, find_node, living_nodes
from elign.jobs.submission import ask_run, find_job
from elign.learner.run_checkpoint import list_checkpoints
from tests.deploy.clusters import LIMIT_S, SMALL, Up, another_node, cluster_up, python_without_elign, wait_for

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
NODES = [
    Node("aaaa11", "first", "10.0.0.1", is_head=True),
    Node("aaab22", "second", "10.0.0.2", is_head=False),
    Node("bbbb33", "third", "10.0.0.2", is_head=False),
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with cluster_up(tmp_path_factory.mktemp("home"), num_cpus=2, has_package=False) as up:
        yield up


@pytest.fixture
def there(elign: Elign, up: Up, monkeypatch: pytest.MonkeyPatch) -> Elign:
    """``elign`` with this cluster as the usual one."""
    monkeypatch.setenv("ELIGN_HOME", str(up.home))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", up.cluster.address)
    return elign


@pytest.mark.slow
@pytest.mark.timeout(4 * LIMIT_S)
def test_a_run_that_brought_its_elign_is_scaled_drained_and_stopped(
    there: Elign, up: Up, tmp_path: Path
) -> None:
    connection = connect(up.cluster.address)
    python = python_without_elign(tmp_path / "python")
    (head,) = wait_for(lambda: living_nodes(connection))
    with another_node(f"{head.ip}:{up.ports.gcs}", num_cpus=1, log=tmp_path / "node.log"):
        wait_for(lambda: len(living_nodes(connection)) == 2)
        # the replica fills the head, and both actors go to the second node
        settings = [
            *SMALL,
            "run.iterations=100000",
            "actors.max=2",
            "actors.num_cpus=0.5",
            "reward.num_cpus=2",
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        sent = there("submit", "--preset", "laptop", *options, "--run-dir", "live", "--python", str(python))
        assert sent.returncode == 0, sent.stderr
        assert "this Elign goes along, for the cluster has none" in sent.stderr
        job = sent.stdout.strip()

        def states() -> Counter[tuple[str, str]]:
            """(state, node) of the actors."""
            told = there("status", job, "--json")
            assert told.returncode == 0, told.stderr
            live = json.loads(told.stdout)["live"]
            return Counter((a["state"], a["node_id"]) for a in live["pool"]["actors"])

        def num_up() -> int:
            return sum(number for (state, _), number in states().items() if state == "up")

        wait_for((tmp_path / "live" / "status.json").exists)
        wait_for(lambda: num_up() == 2)
        assert there("scale", job, "--actors", "1").returncode == 0
        wait_for(lambda: num_up() == 1)
        assert there("scale", "live", "--actors", "2").returncode == 0
        wait_for(lambda: num_up() == 2)
        _check_from_afar(connection, job)
        _check_drain(there, connection, head, lambda: {node for _, node in states()})
        wait_for((tmp_path / "live" / "metrics.parquet").exists)
        assert there("stop", "live").stdout == f"{job}: STOPPED\n"
        assert list_checkpoints(tmp_path / "live")
        ended = there("scale", job, "--actors", "2")
        assert ended.returncode == 2
        assert ended.stderr.startswith("elign: error: the run in")
        assert "is interrupted" in ended.stderr


def _check_from_afar(connection: Connection, job: str) -> None:
    """As if the run's folder could not be seen from here: its own Elign is asked, on the head."""
    details = find_job(connection, job)
    told = json.loads(ask_run(connection, details, "status", "--json"))
    assert told["live"]["pool"]["target"] == 2


def _check_drain(there: Elign, connection: Connection, head: Node, nodes: Callable[[], set[str]]) -> None:
    """The second node, which has the actors, because the replica fills the head."""
    (second,) = (node for node in living_nodes(connection) if node != head)
    wait_for(lambda: second.identifier in nodes())
    assert set(_actors_on(connection, second)) == {"RolloutActor"}  # all else would be in a drain's way
    done = there("drain", second.identifier[:12], "--deadline", str(LIMIT_S))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"node {second} is empty\n"
    wait_for(lambda: second.identifier not in nodes())  # the run tells of its actors every two seconds
    refused = there("drain", head.identifier)
    assert refused.returncode == 2
    assert "is the cluster's head, which cannot go alone" in refused.stderr


def test_a_node_is_found_by_id_address_and_host_or_all_are_shown() -> None:
    for name in ("aaab22", "aaab", "second"):
        assert find_node(NODES, name) == NODES[1]
    assert find_node(NODES, "10.0.0.1").is_head
    with pytest.raises(ConfigError, match="'nowhere' names no node that is up; there are: aaaa11 "):
        find_node(NODES, "nowhere")
    with pytest.raises(ConfigError, match="is the name of several nodes"):
        find_node(NODES, "10.0.0.2")


def test_draining_and_asking_need_a_cluster(elign: Elign) -> None:
    for command in (
        ("drain", "10.0.0.2"),
        ("logs", "runs/first"),
        ("status", "elign-first-1a2b3c4d"),
        ("scale", "elign-first-1a2b3c4d", "--actors", "2"),
        ("stop", "elign-first-1a2b3c4d"),
    ):
        done = elign(*command, "--address", "http://127.0.0.1:9")
        assert done.returncode == 1
        assert done.stderr.startswith("elign: error: there is no Ray at http://127.0.0.1:9 ")
        assert "Traceback" not in done.stderr
