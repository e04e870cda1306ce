"""``elign dashboards``: Grafana dashboards and alert rules, as files or straight into a Grafana."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Dashboards and alerts for Grafana and Prometheus.", no_args_is_help=True)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder for the files; it is made if need be.")],
) -> None:
    """Write dashboards (JSON), alert rules for Prometheus, and the table of all metrics.

    The dashboards can be imported by hand into any Grafana, or provisioned from the folder.

    \b
    Examples:
      elign dashboards export grafana
    """
    from elign.monitoring.export import export_files

    for path in export_files(folder):
        print(path)


@app.command()
def push(
    grafana: Annotated[str, typer.Option(help="Address of Grafana.")] = "http://localhost:3000",
    prometheus: Annotated[
        str, typer.Option(help="Address of Prometheus, as Grafana reaches it.")
    ] = "http://localhost:9090",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace dashboards that were edited in Grafana.")
    ] = False,
) -> None:
    """Put folder, data source, dashboards and alert rules into a Grafana; again is harmless.

    The token of a service account with the role Admin is taken from the environment: GRAFANA_TOKEN.

    \b
    Examples:
      elign dashboards push --grafana http://localhost:3000
      elign dashboards push --grafana https://grafana.example.org --prometheus http://prometheus:9090
    """
    from elign.monitoring.grafana import Target, check_prometheus, push_dashboards

    target, token = Target(grafana, prometheus), os.environ.get("GRAFANA_TOKEN") or None
    written = push_dashboards(target, token, overwrite=overwrite)
    for name in written:
        print(f"written: {name}")
    if not written:
        print("all was up to date")
    check_prometheus(target, token)
