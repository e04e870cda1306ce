"""Short commands that run on a cluster's head as jobs of their own, and what they print.

It is the way to all that the dashboard cannot tell or do, and needs no other port than the dashboard's.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus

from elign.common.errors import ClusterError
from elign.jobs.client import call, head_python, job_status
from elign.jobs.connection import Connection

LIMIT_S = 180.0
_POLL_S = 0.5
_BEGIN = "elign-errand-begins"
"""Before it, Ray's own lines stand in a job's output."""


def run_script(
    connection: Connection, script: Path, arguments: Sequence[str], *, python: str | None = None
) -> str:
    """Run a file of this machine there; it may import what that Python has. See ``run_on_head``."""
    with tempfile.TemporaryDirectory(prefix="elign-errand-") as folder:
        shutil.copy(script, folder)
        command = f"{head_python(connection, python)} {shlex.join([script.name, *arguments])}"
        return run_on_head(connection, command, {"working_dir": folder})


def run_on_head(connection: Connection, command: str, runtime_env: Mapping[str, Any]) -> str:
    """Run a shell command there, and return what it printed.

    Raises ClusterError with its last line when it fails, or has not ended after ``LIMIT_S``.
    """
    job = f"elign-errand-{secrets.token_hex(4)}"
    call(
        connection,
        "submit_job",
        entrypoint=f"echo {_BEGIN}; {command}",
        submission_id=job,
        runtime_env=dict(runtime_env),
    )
    status = _wait(connection, job)
    printed: str = call(connection, "get_job_logs", job)
    message = call(connection, "get_job_info", job).message or ""
    call(connection, "delete_job", job)
    answer = _without_ray(printed, job)
    if status != JobStatus.SUCCEEDED:
        last = (answer.strip() or message.strip() or status.value).splitlines()[-1]
        raise ClusterError(f"at the cluster {connection.address}: {last.removeprefix('elign: error: ')}")
    return answer


def _without_ray(printed: str, job: str) -> str:
    """What the command printed. Ray's line about the entrypoint may come before it, in it or after it."""
    lines = printed.splitlines(keepends=True)
    own = [line for line in lines if f"Running entrypoint for job {job}:" not in line]
    return "".join(own).partition(f"{_BEGIN}\n")[2]


def _wait(connection: Connection, job: str) -> JobStatus:
    end = time.monotonic() + LIMIT_S
    while not (status := job_status(connection, job)).is_terminal():
        if time.monotonic() > end:
            call(connection, "stop_job", job)
            raise ClusterError(
                f"the cluster at {connection.address} did not get a job of a second done in {LIMIT_S:g} s; "
                "it may be full, or its head too busy"
            )
        time.sleep(_POLL_S)
    return status
