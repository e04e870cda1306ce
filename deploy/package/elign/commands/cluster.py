"""``elign cluster``: a Ray head on this machine, with all that jobs and dashboards need."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Start and end a Ray head on this machine.", no_args_is_help=True)


@app.command()
def up(
    num_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs that Ray gives out; by default those of the machine.")
    ] = None,
    dashboard_port: Annotated[int, typer.Option(help="Port of dashboard and jobs.")] = 8265,
    port: Annotated[int, typer.Option(help="Port of Ray's head itself.")] = 6379,
    prometheus_port: Annotated[
        int | None, typer.Option(help="Also start the Prometheus that is installed, on this port.")
    ] = None,
) -> None:
    """Start a Ray head that takes jobs, on localhost, with a token of its own.

    \b
    Examples:
      elign cluster up
      elign cluster up --num-cpus 4 --prometheus-port 9090
    """
    from elign.jobs.local_cluster import Ports, start_cluster, state_folder

    folder = state_folder()
    cluster = start_cluster(folder, Ports(dashboard_port, port, prometheus_port), num_cpus=num_cpus)
    print(f"Ray is up: {cluster.address} (token in {folder / 'token'}, log in {folder / 'head.log'})")
    if cluster.prometheus is not None:
        print(f"Prometheus is up: {cluster.prometheus}")
    print("train on it: elign submit --preset laptop --run-dir runs/first --follow")


@app.command()
def down() -> None:
    """End the head that ``elign cluster up`` started, and its jobs; other Rays are not touched.

    \b
    Examples:
      elign cluster down
    """
    from elign.jobs.local_cluster import state_folder, stop_cluster

    stop_cluster(state_folder())
    print("the cluster is down")
