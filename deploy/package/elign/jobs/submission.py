"""Training runs as jobs of a Ray cluster: sent, followed and stopped through Ray's job server."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from elign import __version__
from elign.common.config import TrainConfig
from elign.common.config_load import dump_config
from elign.common.errors import ClusterError, ConfigError
from elign.jobs.connection import Connection, check_resources

STOP_WAIT_S = 60
"""Between SIGTERM and SIGKILL when a job is stopped: time for the iteration and its checkpoint."""
_POLL_S = 1.0


@dataclass(frozen=True)
class TrainingJob:
    """What is to be run. run_dir: as the cluster sees it. python: the cluster's, which has Elign."""

    config: TrainConfig
    run_dir: Path
    python: str | None = None


def submit(connection: Connection, job: TrainingJob) -> str:
    """Send it and return its id; only the configuration is uploaded. Raises ConfigError or ClusterError."""
    run_dir = _checked_run_dir(connection, job.run_dir)
    check_resources(connection, job.config)
    python = job.python or (sys.executable if connection.is_local else "python")
    command = [python, "-m", "elign", "train", "--config", "config.yaml", "--run-dir", run_dir]
    identifier = f"elign-{PurePosixPath(run_dir).name}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="elign-job-") as folder:
        (Path(folder) / "config.yaml").write_text(dump_config(job.config), encoding="utf-8")
        _call(
            connection,
            "submit_job",
            entrypoint=shlex.join(command),
            submission_id=identifier,
            metadata={"run_dir": run_dir, "elign": __version__},
            runtime_env={
                "working_dir": folder,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
    return identifier


def follow(connection: Connection, identifier: str) -> Iterator[str]:
    """What the job prints, as it comes, until it has ended. Raises ClusterError when it did not end well."""
    seen = 0
    while True:
        status = _status(connection, identifier)
        text = _call(connection, "get_job_logs", identifier)
        if len(text) > seen:
            yield text[seen:]
            seen = len(text)
        if status.is_terminal():
            break
        time.sleep(_POLL_S)
    if status != JobStatus.SUCCEEDED:
        message = _call(connection, "get_job_info", identifier).message or ""
        raise ClusterError(f"job {identifier} is {status.value}: {' '.join(message.splitlines()[:1])}")


def logs(connection: Connection, identifier: str) -> str:
    """All that the job has printed so far."""
    _status(connection, identifier)
    text: str = _call(connection, "get_job_logs", identifier)
    return text


def stop(connection: Connection, identifier: str) -> str:
    """End the job after its iteration, with a checkpoint; returns what it is then, as in "STOPPED"."""
    status = _status(connection, identifier)
    if not status.is_terminal():
        _call(connection, "stop_job", identifier)
    while not status.is_terminal():
        time.sleep(_POLL_S)
        status = _status(connection, identifier)
    return str(status.value)


def _status(connection: Connection, identifier: str) -> JobStatus:
    return _call(connection, "get_job_status", identifier)


def _call(connection: Connection, method: str, *arguments: Any, **keywords: Any) -> Any:
    """One call of Ray's client, whose errors are RuntimeErrors with a page of HTML or a traceback."""
    try:
        client = JobSubmissionClient(connection.address, headers=dict(connection.headers))
        return getattr(client, method)(*arguments, **keywords)
    except (RuntimeError, ConnectionError) as error:
        text = str(error)
        if "does not exist" in text:
            raise ClusterError(
                f"the cluster at {connection.address} knows no job {arguments[0]!r}"
            ) from error
        last = text.strip().splitlines()[-1]
        raise ClusterError(f"the cluster at {connection.address} refused {method}: {last}") from error


def _checked_run_dir(connection: Connection, run_dir: Path) -> str:
    """As the cluster sees it."""
    if connection.is_local:
        return str(run_dir.resolve())
    if not run_dir.is_absolute():
        raise ConfigError(
            f"--run-dir {run_dir} must be an absolute path that the cluster's head sees, on a shared disk"
        )
    return str(run_dir)
