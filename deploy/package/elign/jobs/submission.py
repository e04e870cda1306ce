"""Training runs as jobs of a Ray cluster: sent, found, followed and stopped through Ray's job server."""

from __future__ import annotations

import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from elign import __version__
from elign.common.config import TrainConfig
from elign.common.config_load import dump_config
from elign.common.errors import ClusterError, ConfigError
from elign.common.remote_folder import is_uri, uri_name
from elign.jobs.client import call, head_python, job_status
from elign.jobs.connection import Connection, check_resources
from elign.jobs.errand import run_on_head
from elign.jobs.package import copy_package, look_at_python, must_upload

STOP_WAIT_S = 60
"""Between SIGTERM and SIGKILL when a job is stopped: time for the iteration and its checkpoint."""
_POLL_S = 1.0
_RUN_DIR, _PYTHON = "run_dir", "python"


@dataclass(frozen=True)
class TrainingJob:
    """What is to be run.

    run_dir: folder as the cluster sees it, or URI. python: one of the cluster's; None finds it.
    """

    config: TrainConfig
    run_dir: Path | str
    python: str | None = None


@dataclass(frozen=True)
class Submitted:
    """identifier: of the job. uploaded: did this Elign go along? theirs: the cluster's own version."""

    identifier: str
    uploaded: bool
    theirs: str | None


def submit(connection: Connection, job: TrainingJob) -> Submitted:
    """Send it, with what the cluster lacks of Elign and nothing else. Raises ConfigError or ClusterError."""
    run_dir = _checked_run_dir(connection, job.run_dir)
    _check_name(connection, run_dir)
    check_resources(connection, job.config)
    found = look_at_python(connection, job.python)
    uploaded = must_upload(connection, found)
    python = head_python(connection, job.python)
    identifier = f"elign-{run_name(run_dir)}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="elign-job-") as folder:
        settings = Path(folder) / "settings"
        settings.mkdir()
        (settings / "config.yaml").write_text(dump_config(job.config), encoding="utf-8")
        environment: dict[str, Any] = {
            "working_dir": str(settings),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
        }
        if uploaded:
            environment["py_modules"] = [str(copy_package(Path(folder)))]
        call(
            connection,
            "submit_job",
            entrypoint=f"{python} -m elign train --config config.yaml --run-dir {shlex.quote(run_dir)}",
            submission_id=identifier,
            metadata={_RUN_DIR: run_dir, _PYTHON: python, "elign": __version__},
            runtime_env=environment,
        )
    return Submitted(identifier, uploaded, found.elign)


def find_job(connection: Connection, target: str) -> JobDetails:
    """By its id, or the newest by its run directory. Raises ClusterError where there is none."""
    jobs = [job for job in call(connection, "list_jobs") if job.submission_id]
    places = {target, str(Path(target).resolve())}
    for job in sorted(jobs, key=lambda job: -(job.start_time or 0)):
        if job.submission_id == target or (job.metadata or {}).get(_RUN_DIR) in places:
            return job
    raise ClusterError(f"the cluster at {connection.address} knows no job and no run {target!r}")


def run_name(run_dir: str) -> str:
    """Its last part, by which metrics and jobs are told apart. Raises ConfigError for a URI without one."""
    return uri_name(run_dir) if is_uri(run_dir) else PurePosixPath(run_dir).name


def run_directory(job: JobDetails) -> str:
    """Of a run's job, as the cluster sees it. Raises ClusterError where the job is no run."""
    try:
        return str((job.metadata or {})[_RUN_DIR])
    except KeyError:
        raise ClusterError(f"job {job.submission_id} is no run of elign submit") from None


def ask_run(connection: Connection, job: JobDetails, command: str, *options: str) -> str:
    """``elign command RUN_DIR`` on the head, with that job's own Elign; what it printed."""
    words = shlex.join([command, run_directory(job), *options])
    return run_on_head(connection, f"{job.metadata[_PYTHON]} -m elign {words}", job.runtime_env or {})


def follow(connection: Connection, identifier: str) -> Iterator[str]:
    """What the job prints, as it comes, until it has ended. Raises ClusterError when it did not end well."""
    seen = 0
    while True:
        status = job_status(connection, identifier)
        text = call(connection, "get_job_logs", identifier)
        if len(text) > seen:
            yield text[seen:]
            seen = len(text)
        if status.is_terminal():
            break
        time.sleep(_POLL_S)
    if status != JobStatus.SUCCEEDED:
        message = call(connection, "get_job_info", identifier).message or ""
        raise ClusterError(f"job {identifier} is {status.value}: {' '.join(message.splitlines()[:1])}")


def logs(connection: Connection, identifier: str) -> str:
    """All that the job has printed so far."""
    job_status(connection, identifier)
    text: str = call(connection, "get_job_logs", identifier)
    return text


def stop(connection: Connection, identifier: str) -> str:
    """End the job after its iteration, with a checkpoint; returns what it is then, as in "STOPPED"."""
    status = job_status(connection, identifier)
    if not status.is_terminal():
        call(connection, "stop_job", identifier)
    while not status.is_terminal():
        time.sleep(_POLL_S)
        status = job_status(connection, identifier)
    return str(status.value)


def _check_name(connection: Connection, run_dir: str) -> None:
    """Runs that are going on have names of their own: a run's name is its only mark in the metrics."""
    name = run_name(run_dir)
    for job in call(connection, "list_jobs"):
        other = (job.metadata or {}).get(_RUN_DIR)
        if other is not None and run_name(other) == name and not job.status.is_terminal():
            raise ClusterError(
                f"a run {name!r} is going on there, in {other} (job {job.submission_id}), and the dashboards "
                "could not tell two of that name apart; give --run-dir another last part"
            )


def _checked_run_dir(connection: Connection, place: Path | str) -> str:
    """As the cluster sees it."""
    if is_uri(place):
        return str(place)
    run_dir = Path(place)
    if connection.is_local:
        return str(run_dir.resolve())
    if not run_dir.is_absolute():
        raise ConfigError(
            f"--run-dir {run_dir} must be an absolute path that the cluster's head sees, on a shared disk"
        )
    return str(run_dir)
