"""Calls of Ray's job server whose errors are one line, and the Python that jobs run with there."""

from __future__ import annotations

import logging
import shlex
import sys
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from elign.common.errors import ClusterError
from elign.jobs.connection import Connection

for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they would tell of each upload


def call(connection: Connection, method: str, *arguments: Any, **keywords: Any) -> Any:
    """One call of Ray's client, whose own errors hold a page of HTML or a traceback. Raises ClusterError."""
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


def job_status(connection: Connection, job: str) -> JobStatus:
    """Raises ClusterError where there is no such job."""
    return call(connection, "get_job_status", job)


def head_python(connection: Connection, chosen: str | None = None) -> str:
    """A word for the head's shell: ``chosen``, or this very Python where it is there, or python."""
    if chosen is not None:
        return shlex.quote(chosen)
    if connection.is_local:  # perhaps through a tunnel: then this machine's programs are not there
        return f'"$(command -v {shlex.quote(sys.executable)} || echo python)"'
    return "python"
