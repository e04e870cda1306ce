"""A connection to a Ray cluster's job server, and what can be told before anything is sent there.

cluster = connect("http://127.0.0.1:8265")
check_resources(cluster, config)
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests

from elign.common.config import TrainConfig
from elign.common.errors import ClusterError, ConfigError
from elign.jobs.local_cluster import state_folder, token_of

_TIMEOUT_S = 20.0
_REPORT_LIMIT_S = 15.0
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Connection:
    """Where the job server is, and what it wants to see in requests; the token is not shown."""

    address: str
    headers: Any

    def __repr__(self) -> str:
        return f"Connection({self.address!r})"

    @property
    def is_local(self) -> bool:
        """Is it on this machine, with the same files and programs?"""
        return urlsplit(self.address).hostname in _LOCAL_HOSTS

    def get(self, path: str) -> Any:
        """The answer's JSON; raises ClusterError that says what is wrong."""
        try:
            response = requests.get(self.address + path, headers=self.headers, timeout=_TIMEOUT_S)
            if response.status_code in (401, 403):
                raise ClusterError(_refusal(self.address, bool(self.headers)))
            response.raise_for_status()
            return response.json()
        except (requests.ConnectionError, requests.Timeout) as error:
            raise ClusterError(
                f"there is no Ray at {self.address} ({type(error).__name__}); "
                "start one here with: elign cluster up"
            ) from error
        except requests.RequestException as error:
            raise ClusterError(f"what answers at {self.address} is not Ray's job server ({error})") from error


def connect(address: str) -> Connection:
    """Check that the address is right, the token is accepted and Ray is of the same version.

    The token comes from RAY_AUTH_TOKEN, from the file in RAY_AUTH_TOKEN_PATH, from the cluster that ``elign
    cluster up`` started, or from ``~/.ray/auth_token``. Raises ConfigError or ClusterError.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"--address {address} should begin with http:// (it is the dashboard's address)")
    address = address.rstrip("/")
    token = _token(address)
    connection = Connection(address, {"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.get("/api/version")
    theirs = str(answer.get("ray_version")) if isinstance(answer, dict) else "unknown"
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(f"the cluster at {address} runs Ray {theirs}, and here is {ray.__version__}")
    return connection


def check_resources(connection: Connection, config: TrainConfig) -> None:
    """Raises ClusterError when a cluster without autoscaler can never run this."""
    if not _has_fixed_size(_autoscaler_report(connection)):
        return
    nodes = connection.get("/nodes?view=summary")["data"]["summary"]
    totals = [node["raylet"].get("resourcesTotal", {}) for node in nodes]
    refusal = unsatisfiable(config, totals)
    if refusal is not None:
        raise ClusterError(f"the cluster at {connection.address} can never run this: {refusal}")


def unsatisfiable(config: TrainConfig, nodes: list[dict[str, float]]) -> str | None:
    """What these nodes (resource -> amount) lack for a run, if anything."""
    actors, reward, learner = config.actors, config.reward, config.learner
    parts = {
        "a rollout actor": (actors.num_cpus, actors.num_gpus, actors.min),
        "a replica of the reward server": (reward.num_cpus, reward.num_gpus, reward.replicas),
        "a learner": (1.0 if learner.learners > 1 else 0.0, learner.num_gpus, learner.learners),
    }
    for kind, index in (("CPU", 0), ("GPU", 1)):
        there = [node.get(kind, 0.0) for node in nodes]
        largest = max(there, default=0.0)
        for name, part in parts.items():
            if part[index] > largest:
                return f"{name} wants {part[index]:g} {kind}, and no node has more than {largest:g}"
        least = sum(part[index] * part[2] for part in parts.values())
        if least > sum(there):
            return f"the fewest rollout actors, replicas and learners want {least:g} {kind} of {sum(there):g}"
    return None


def _autoscaler_report(connection: Connection) -> dict[str, Any]:
    """Ray's monitor writes it some seconds after a head has started; empty where none comes."""
    end = time.monotonic() + _REPORT_LIMIT_S
    while True:
        status = connection.get("/api/cluster_status?format=0")["data"]["clusterStatus"] or {}
        report: dict[str, Any] = status.get("autoscalerReport") or {}
        if report or time.monotonic() > end:
            return report
        time.sleep(1.0)


def _has_fixed_size(report: dict[str, Any]) -> bool:
    """Without an autoscaler, Ray calls each node's type by the node's own id."""
    types = report.get("nodeTypeMapping") or {}
    return bool(types) and all(kind == f"node_{node}" for node, kind in types.items())


def _token(address: str) -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read_token(Path(path))
    if token := token_of(state_folder(), address):
        return token
    default = Path.home() / ".ray" / "auth_token"
    return _read_token(default) if default.exists() else None


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"cannot read the token in {path}: {error.strerror}") from error


def _refusal(address: str, has_token: bool) -> str:
    if has_token:
        return f"the cluster at {address} does not accept the token"
    return f"the cluster at {address} wants a token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file"
