"""A Ray head on this machine, for those who have no cluster: dashboard, jobs, token, metrics.

    cluster = start_cluster(state_folder(), Ports())
    cluster.address                    # http://127.0.0.1:8265
    stop_cluster(state_folder())

Its processes are known by their ids, which are kept in a file: other Rays on the machine are not touched.
Dashboard, jobs and Prometheus listen on localhost. What Ray itself opens between its nodes listens on the
machine's address, behind the token.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from elign.common.errors import ClusterError, ConfigError
from elign.common.storage import write_json
from elign.common.user_folder import user_folder
from elign.jobs.prometheus import prometheus_command, write_prometheus_config

HOST = "127.0.0.1"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
_READY = ("api/jobs/", "nodes?view=summary")
"""What is asked of a head that starts; it may take jobs before it has a node to run them, and fail then."""
_STATE, _TOKEN, _LOG = "cluster.json", "token", "head.log"


@dataclass(frozen=True)
class Ports:
    """Of a head; prometheus: None starts no Prometheus."""

    dashboard: int = 8265
    gcs: int = 6379
    prometheus: int | None = None


@dataclass(frozen=True)
class LocalCluster:
    """A head that was started. pids: of the processes to end. temp_dir: of Ray's logs and sockets."""

    address: str
    pids: tuple[int, ...]
    temp_dir: str
    prometheus: str | None


def state_folder() -> Path:
    """Where token, log and state of the local cluster are."""
    return user_folder() / "cluster"


def start_cluster(folder: Path, ports: Ports, *, num_cpus: int | None = None) -> LocalCluster:
    """Start a head and wait until it takes jobs. Raises ClusterError, with nothing left running."""
    running = running_cluster(folder)
    if running is not None:
        raise ClusterError(f"a cluster is up already, at {running.address}; end it with: elign cluster down")
    command = prometheus_command(ports.prometheus) if ports.prometheus is not None else None
    for port in filter(None, asdict(ports).values()):
        _check_free(port)
    folder.mkdir(parents=True, exist_ok=True)
    token = _write_token(folder / _TOKEN)
    temp_dir = tempfile.mkdtemp(prefix="elign-ray-")  # short: Ray's sockets have a length limit
    processes = [_start_head(folder, temp_dir, ports, num_cpus)]
    address = f"http://{HOST}:{ports.dashboard}"
    try:
        _wait_until_ready(address, token, processes[0], folder / _LOG)
        if command is not None:
            config = write_prometheus_config(folder, Path(temp_dir))
            processes.append(_start([*command, *config], folder / "prometheus.log", {}))
    except BaseException:
        _end([process.pid for process in processes])
        raise
    prometheus = f"http://{HOST}:{ports.prometheus}" if command is not None else None
    cluster = LocalCluster(address, tuple(process.pid for process in processes), temp_dir, prometheus)
    write_json(folder / _STATE, asdict(cluster))
    return cluster


def running_cluster(folder: Path) -> LocalCluster | None:
    """The one that was started, if something of it still lives."""
    try:
        facts = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    cluster = LocalCluster(**{**facts, "pids": tuple(facts["pids"])})
    return cluster if any(map(_alive, cluster.pids)) else None


def stop_cluster(folder: Path) -> None:
    """End what was started; jobs end with it. Raises ClusterError when nothing runs."""
    cluster = running_cluster(folder)
    if cluster is None:
        raise ClusterError("no cluster of elign cluster up is running on this machine")
    _end(cluster.pids)
    (folder / _STATE).unlink()
    shutil.rmtree(cluster.temp_dir, ignore_errors=True)


def token_of(folder: Path, address: str) -> str | None:
    """The token of the local cluster, if it is the one at ``address``."""
    cluster = running_cluster(folder)
    if cluster is None or cluster.address != address.rstrip("/"):
        return None
    return (folder / _TOKEN).read_text(encoding="utf-8").strip()


def _start_head(folder: Path, temp_dir: str, ports: Ports, num_cpus: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--dashboard-host={HOST}", f"--temp-dir={temp_dir}"]
    command += [f"--port={ports.gcs}", f"--dashboard-port={ports.dashboard}", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={_free_port()}", f"--dashboard-agent-listen-port={_free_port()}"]
    if num_cpus is not None:
        command.append(f"--num-cpus={num_cpus}")
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / _TOKEN),
        # Ray's own defaults are the same for every head on a machine
        "DASHBOARD_METRIC_PORT": str(_free_port()),
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
    }
    return _start(command, folder / _LOG, environment)


def _start(command: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C here does not reach it."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**kept, **environment},
            start_new_session=True,
        )


def _wait_until_ready(address: str, token: str, head: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    headers = {"Authorization": f"Bearer {token}"}
    while time.monotonic() < end:
        if head.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ClusterError(f"Ray's head ended while starting: {' '.join(last)} (all of it: {log})")
        try:
            answers = [requests.get(f"{address}/{path}", headers=headers, timeout=5) for path in _READY]
            if all(answer.ok for answer in answers) and answers[1].json()["data"]["summary"]:
                return
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.5)
    raise ClusterError(f"Ray's head was not ready within {START_LIMIT_S:g} s; its log is {log}")


def _end(pids: Sequence[int]) -> None:
    """SIGTERM, on which a head ends all of its own; SIGKILL to the session of one that does not."""
    for pid in pids:
        if _alive(pid):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_LIMIT_S
    while any(map(_alive, pids)) and time.monotonic() < end:
        time.sleep(0.2)
    for pid in pids:
        if _alive(pid):
            os.killpg(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    """Is it there, and no zombie of ours?"""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass  # not our child: started by an earlier command
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _write_token(path: Path) -> str:
    token = secrets.token_hex(32)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(token)
    return token


def _free_port() -> int:
    """Not among 10002 to 19999, where Ray's workers listen."""
    while True:
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            port = int(listener.getsockname()[1])
        if not 10_002 <= port <= 19_999:
            return port


def _check_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"port {port} is taken ({error.strerror}); choose another") from None
