"""``elign submit``, ``elign logs``, ``elign stop``: training runs as jobs of a Ray cluster."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from elign.commands.options import LOCAL_CLUSTER, Address, ConfigFile, Overrides, Preset

Job = Annotated[str, typer.Argument(help="Id of a job, as elign submit printed it, or its run directory.")]


def submit(
    run_dir: Annotated[
        str,
        typer.Option(help="Folder of the run, as the cluster's head sees it, or URI (s3://bucket/first)."),
    ],
    address: Address = LOCAL_CLUSTER,
    preset: Preset = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    python: Annotated[
        str | None,
        typer.Option(
            help="Python for the job, as the head knows it; by default this one, or python elsewhere."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show what it prints, until it ends.")] = False,
) -> None:
    """Train on a Ray cluster, as a job that goes on when this machine is switched off.

    The cluster's token is taken from RAY_AUTH_TOKEN or the file in RAY_AUTH_TOKEN_PATH; that of elign cluster
    up is known. Address, token, versions and resources are checked before anything is started. A cluster
    that does not have this very Elign gets it along with the job.

    \b
    Examples:
      elign submit --preset laptop --run-dir runs/first --follow
      elign submit --address http://head:8265 --config mine.yaml --run-dir /shared/runs/mine
      elign submit --address http://head:8265 --config mine.yaml --run-dir s3://bucket/runs/mine
    """
    from elign.common.config_load import load_config
    from elign.common.errors import ConfigError

    if preset is None and config is None:
        raise ConfigError("say what to train: --preset laptop, or --config FILE")
    settings = load_config(preset, config, overrides or [])
    from elign.jobs.connection import connect
    from elign.jobs.submission import TrainingJob
    from elign.jobs.submission import submit as send

    sent = send(connect(address), TrainingJob(settings, run_dir, python))
    if sent.uploaded:
        theirs = "has none" if sent.theirs is None else f"has another, of version {sent.theirs}"
        print(f"this Elign goes along, for the cluster {theirs}", file=sys.stderr)
    print(sent.identifier)
    if follow:
        _follow(address, sent.identifier)


def logs(
    job: Job,
    address: Address = LOCAL_CLUSTER,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job has printed.

    \b
    Examples:
      elign logs elign-first-1a2b3c4d
      elign logs runs/first --follow
    """
    from elign.jobs.connection import connect
    from elign.jobs.submission import find_job
    from elign.jobs.submission import logs as read

    connection = connect(address)
    identifier = find_job(connection, job).submission_id
    if follow:
        _follow(address, identifier)
    else:
        print(read(connection, identifier), end="")


def stop(job: Job, address: Address = LOCAL_CLUSTER) -> None:
    """Stop a job after its iteration; the run is saved and can be resumed.

    \b
    Examples:
      elign stop elign-first-1a2b3c4d
      elign stop runs/first
    """
    from elign.jobs.connection import connect
    from elign.jobs.submission import find_job
    from elign.jobs.submission import stop as end

    connection = connect(address)
    identifier = find_job(connection, job).submission_id
    print(f"{identifier}: {end(connection, identifier)}")


def _follow(address: str, job: str) -> None:
    from elign.jobs.connection import connect
    from elign.jobs.submission import follow

    try:
        for text in follow(connect(address), job):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; to end it: elign stop {job}", file=sys.stderr)
        raise typer.Exit(130) from None
