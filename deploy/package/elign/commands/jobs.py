"""``elign submit``, ``elign logs``, ``elign stop``: training runs as jobs of a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import ConfigFile, Overrides, Preset

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="Address of the cluster's dashboard, as elign cluster up shows it.",
    ),
]
Job = Annotated[str, typer.Argument(help="Id of a job, as elign submit printed it.")]
_LOCAL = "http://127.0.0.1:8265"


def submit(
    run_dir: Annotated[Path, typer.Option(help="Folder of the run, as the cluster's head sees it.")],
    address: Address = _LOCAL,
    preset: Preset = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    python: Annotated[
        str | None,
        typer.Option(help="Python of the cluster that has Elign; by default this one, or python elsewhere."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show what it prints, until it ends.")] = False,
) -> None:
    """Train on a Ray cluster, as a job that goes on when this machine is switched off.

    The cluster's token is taken from RAY_AUTH_TOKEN or the file in RAY_AUTH_TOKEN_PATH; that of elign cluster
    up is known. Address, token, version and resources are checked before anything is sent.

    \b
    Examples:
      elign submit --preset laptop --run-dir runs/first --follow
      elign submit --address http://head:8265 --config mine.yaml --run-dir /shared/runs/mine
    """
    from elign.common.config_load import load_config
    from elign.common.errors import ConfigError

    if preset is None and config is None:
        raise ConfigError("say what to train: --preset laptop, or --config FILE")
    settings = load_config(preset, config, overrides or [])
    from elign.jobs.connection import connect
    from elign.jobs.submission import TrainingJob
    from elign.jobs.submission import submit as send

    identifier = send(connect(address), TrainingJob(settings, run_dir, python))
    print(identifier)
    if follow:
        _follow(address, identifier)


def logs(
    job: Job,
    address: Address = _LOCAL,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job has printed.

    \b
    Examples:
      elign logs elign-first-1a2b3c4d
      elign logs elign-first-1a2b3c4d --follow
    """
    from elign.jobs.connection import connect
    from elign.jobs.submission import logs as read

    if follow:
        _follow(address, job)
    else:
        print(read(connect(address), job), end="")


def stop(job: Job, address: Address = _LOCAL) -> None:
    """Stop a job after its iteration; the run is saved and can be resumed.

    \b
    Examples:
      elign stop elign-first-1a2b3c4d
    """
    from elign.jobs.connection import connect
    from elign.jobs.submission import stop as end

    print(f"{job}: {end(connect(address), job)}")


def _follow(address: str, job: str) -> None:
    from elign.jobs.connection import connect
    from elign.jobs.submission import follow

    try:
        for text in follow(connect(address), job):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; to end it: elign stop {job}", file=sys.stderr)
        raise typer.Exit(130) from None
