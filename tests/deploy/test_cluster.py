"""A real local cluster: up, a training job followed to its end, another stopped, metrics scraped, down.

Minutes on a busy machine. With a Prometheus on the PATH, every query of every panel and alert is asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.errors import ClusterError, ConfigError
from elign.jobs import local_cluster
from elign.jobs.connection import Connection, connect, unsatisfiable
from elign.jobs.local_cluster import (
    LocalCluster,
    Ports,
    start_cluster,
    state_folder,
    stop_cluster,
)
from elign.jobs.submission import TrainingJob, ask_run, find_job, follow, logs, stop, submit
from elign.learner.run_metrics import read_metrics
from elign.monitoring.alerts import ALERTS
from elign.monitoring.dashboards import DASHBOARDS, NEEDS_GPU
from elign.monitoring.events import EVENTS
from tests.deploy.clusters import LIMIT_S, SMALL, cluster_up, wait_for
from tests.deploy.monitoring.promql import concrete, series_in

# what has no series before something went wrong
ONLY_AFTER_TROUBLE = {
    "ray_elign_actors_lost_total",
    "ray_elign_failures_total",
    "ray_elign_plans_total",
    "ray_elign_reward_queries_total",
    "ray_elign_reward_replicas_replaced_total",
    "ray_elign_rows_left_out_total",
    "ray_elign_skipped_optimizer_steps_total",
    *NEEDS_GPU,
}
ONLY_THEN = {"Run ended", "Alarm"}
"""Marks of moments, which have no value at any other."""


def _config(iterations: int) -> TrainConfig:
    return load_config("laptop", None, [*SMALL, "run.checkpoint_every=2", f"run.iterations={iterations}"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_up(tmp_path_factory.mktemp("home"), num_cpus=4, prometheus=True) as up:
        yield up.cluster


@pytest.fixture
def connection(cluster: LocalCluster) -> Connection:
    return connect(cluster.address)


@pytest.mark.slow
def test_only_the_right_token_opens_the_cluster(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (state_folder() / "token").read_text()
    assert (state_folder() / "token").stat().st_mode & 0o077 == 0
    assert token not in repr(connect(cluster.address))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(ClusterError, match="does not accept the token"):
        connect(cluster.address)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setattr("elign.jobs.connection.token_of", lambda *_: None)
    monkeypatch.setattr(Path, "home", lambda: Path("/nonexistent"))
    with pytest.raises(ClusterError, match="wants a token"):
        connect(cluster.address)


@pytest.mark.slow
def test_a_second_cluster_and_what_can_never_run_are_refused(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="a cluster is up already"):
        start_cluster(state_folder(), Ports())
    greedy = load_config("laptop", None, ["reward.num_gpus=1"])
    with pytest.raises(ClusterError, match=r"can never run this: a replica .* wants 1 GPU"):
        submit(connection, TrainingJob(greedy, tmp_path / "run"))
    with pytest.raises(ClusterError, match="knows no job 'nothing'"):
        logs(connection, "nothing")
    with pytest.raises(ClusterError, match="knows no job and no run 'nothing'"):
        find_job(connection, "nothing")
    with pytest.raises(ClusterError, match=r"/nowhere/python: not found"):
        submit(connection, TrainingJob(_config(2), tmp_path / "run", "/nowhere/python"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_a_job_is_followed_to_its_end(connection: Connection, tmp_path: Path) -> None:
    sent = submit(connection, TrainingJob(_config(2), tmp_path / "run"))
    assert not sent.uploaded  # the cluster has this very Elign
    printed = "".join(follow(connection, sent.identifier))
    assert "training 2/2" in printed
    assert printed == logs(connection, sent.identifier)
    assert len(read_metrics(tmp_path / "run")) == 2
    # its folder is in use now, and the job says so
    again = submit(connection, TrainingJob(_config(2), tmp_path / "run")).identifier
    with pytest.raises(ClusterError, match=f"job {again} is FAILED"):
        assert "is not empty" in "".join(follow(connection, again))


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_S)
def test_a_job_whose_run_has_an_address_is_asked_scaled_and_stopped(
    connection: Connection, tmp_path: Path
) -> None:
    place = tmp_path / "bucket" / "far"
    identifier = submit(connection, TrainingJob(_config(10_000), place.as_uri())).identifier
    assert identifier.startswith("elign-far-")
    wait_for(lambda: (place / "metrics.parquet").exists() and len(read_metrics(place)) >= 2)
    job = find_job(connection, place.as_uri())
    assert job.submission_id == identifier
    told = json.loads(ask_run(connection, job, "status", "--json"))
    assert told["state"] == "running"
    assert told["completed_iterations"] >= 2
    assert "asked for 1 actors" in ask_run(connection, job, "scale", "--actors", "1")
    wait_for(lambda: json.loads((place / "status.json").read_text())["pool"]["target"] == 1)
    assert stop(connection, identifier) == "STOPPED"
    assert json.loads((place / "run.json").read_text())["state"] == "interrupted"
    done = len(read_metrics(place))
    assert (place / "checkpoints" / f"iteration_{done:06d}" / "state.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_S)
def test_metrics_of_a_run_answer_every_query_and_a_stopped_job_is_saved(
    cluster: LocalCluster, connection: Connection, tmp_path: Path
) -> None:
    run_dir = tmp_path / "stopped"
    identifier = submit(connection, TrainingJob(_config(10_000), run_dir)).identifier
    with pytest.raises(ClusterError, match=r"a run 'stopped' is going on there, in .* \(job elign-stopped-"):
        submit(connection, TrainingJob(_config(2), tmp_path / "elsewhere" / "stopped"))
    wait_for(lambda: (run_dir / "metrics.parquet").exists() and len(read_metrics(run_dir)) >= 2)
    if cluster.prometheus is not None:
        _ask_every_query(cluster.prometheus, "stopped")
    assert stop(connection, identifier) == "STOPPED"
    if cluster.prometheus is not None:
        (ended,) = (event.expression for event in EVENTS if event.name == "Run ended")
        wait_for(lambda: _ask(cluster.prometheus, ended.replace("$run", "stopped")))
    done = len(read_metrics(run_dir))
    assert (run_dir / "checkpoints" / f"iteration_{done:06d}").is_dir()


def _ask(prometheus: str | None, expression: str) -> list[Any]:
    query = {"query": concrete(expression, "10m")}
    answer = requests.get(f"{prometheus}/api/v1/query", params=query, timeout=20)
    assert answer.ok, f"{expression}: {answer.text}"
    found: list[Any] = answer.json()["data"]["result"]
    return found


def _ask_every_query(prometheus: str, run: str) -> None:
    def ask(expression: str) -> list[Any]:
        return _ask(prometheus, expression)

    # two scrapes, so that rates exist
    wait_for(lambda: ask(f'rate(ray_elign_molecules_total{{run="{run}"}}[10m])'))
    wait_for(lambda: ask("rate(ray_elign_reward_batches_total[10m])"))
    for dashboard in DASHBOARDS:
        for panel, expression in dashboard.queries():
            if panel not in ONLY_THEN and not series_in(expression).keys() & ONLY_AFTER_TROUBLE:
                assert ask(expression), f"{dashboard.title}, {panel}: no data for {expression}"
            else:
                ask(expression)
    for alert in ALERTS:
        ask(alert.promql)


@pytest.mark.slow
def test_down_ends_what_up_started_and_nothing_else(cluster: LocalCluster) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stop_cluster(state_folder())
        assert bystander.poll() is None
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()
    assert not Path(cluster.temp_dir).exists()
    left = subprocess.run(["pgrep", "-f", cluster.temp_dir], capture_output=True, text=True).stdout.split()
    assert [pid for pid in left if int(pid) != os.getpid()] == []
    with pytest.raises(ClusterError, match="no cluster of elign cluster up is running"):
        stop_cluster(state_folder())


def test_wrong_addresses_are_named() -> None:
    with pytest.raises(ConfigError, match="should begin with http://"):
        connect("127.0.0.1:8265")
    with pytest.raises(ClusterError, match=r"there is no Ray at http://127\.0\.0\.1:9 "):
        connect("http://127.0.0.1:9")


def test_what_a_fixed_cluster_lacks_is_named() -> None:
    config = _config(1)
    assert unsatisfiable(config, [{"CPU": 4.0}]) is None
    assert unsatisfiable(config, [{"CPU": 1.0}]) == (
        "the fewest rollout actors, replicas and learners want 2 CPU of 1"
    )
    learner = config.learner.model_copy(update={"num_gpus": 1.0})
    greedy = config.model_copy(update={"learner": learner})
    assert unsatisfiable(greedy, [{"CPU": 4.0}]) == "a learner wants 1 GPU, and no node has more than 0"
    assert unsatisfiable(greedy, [{"CPU": 4.0}, {"CPU": 4.0, "GPU": 2.0}]) is None
    assert "no node" in str(unsatisfiable(config, []))


def test_a_relative_folder_means_nothing_to_a_remote_cluster() -> None:
    remote = Connection("http://head:8265", {})
    with pytest.raises(ConfigError, match="must be an absolute path"):
        submit(remote, TrainingJob(_config(1), Path("runs/first")))


def test_a_prometheus_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no program prometheus on the PATH; install it, or leave it out"):
        start_cluster(tmp_path, replace(Ports(), prometheus=9090))


def test_nothing_is_left_when_a_head_cannot_start(tmp_path: Path) -> None:
    taken = local_cluster.socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    with taken, pytest.raises(ConfigError, match="is taken"):
        start_cluster(tmp_path, replace(Ports(), dashboard=taken.getsockname()[1]))
    assert list(tmp_path.iterdir()) == []
