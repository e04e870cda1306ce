"""A run is named by its folder or URI where that can be seen, and otherwise by its job on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from elign.commands.options import LOCAL_CLUSTER

Target = Annotated[
    str, typer.Argument(help="Run directory, its URI, or id of a job as elign submit printed it.")
]
ClusterOfRun = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Dashboard of the cluster that has the run, where its directory cannot be seen from here.",
    ),
]


@dataclass(frozen=True)
class RemoteRun:
    """A run whose folder only the cluster sees. job: Ray's details of it."""

    connection: Any
    job: Any

    def ask(self, command: str, *options: str) -> str:
        """What ``elign command`` prints of it over there. Raises ClusterError."""
        from elign.jobs.submission import ask_run

        return ask_run(self.connection, self.job, command, *options)


def locate(target: str, address: str | None) -> str | RemoteRun:
    """The run's folder or URI, or the run on its cluster. Raises ConfigError or ClusterError."""
    if Path(target).exists() or (address is None and not target.startswith("elign-")):
        return target  # a folder that is missing is told by whoever reads it
    from elign.common.remote_folder import run_copy
    from elign.jobs.connection import connect
    from elign.jobs.submission import find_job, run_directory

    connection = connect(address or LOCAL_CLUSTER)
    job = find_job(connection, target)
    place = run_directory(job)
    if connection.is_local and run_copy(place).exists():
        return place
    return RemoteRun(connection, job)
