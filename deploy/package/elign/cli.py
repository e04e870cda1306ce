"""The ``elign`` command: assembles the commands and turns errors into one line and an exit code.

Exit codes: 0 done; 1 failed while running; 2 wrong usage, configuration or input; 130 interrupted. An
``ElignError`` prints its message alone; set ELIGN_DEBUG=1 for the traceback. Commands import what they need
when they run, so that ``elign --help`` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from elign import __version__
from elign.commands import (
    cluster,
    config,
    dashboards,
    drain,
    evaluate,
    force_fields,
    jobs,
    policies,
    pretrain,
    profile,
    relax,
    sample,
    scale,
    score,
    status,
    train,
    watch,
)
from elign.common.errors import CheckpointError, ConfigError, DataError, ElignError, ForceFieldError
from elign.common.process_memory import keep_freed_memory

_INPUT_ERRORS = (CheckpointError, ConfigError, DataError, ForceFieldError)

app = typer.Typer(
    name="elign",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("status")(status.status)
app.command("scale")(scale.scale)
app.command("drain")(drain.drain)
app.command("sample")(sample.sample)
app.command("score")(score.score)
app.command("evaluate")(evaluate.evaluate)
app.command("relax")(relax.relax)
app.command("pretrain")(pretrain.pretrain)
app.command("profile")(profile.profile)
app.command("watch")(watch.watch)
app.command("submit")(jobs.submit)
app.command("logs")(jobs.logs)
app.command("stop")(jobs.stop)
app.add_typer(policies.app, name="policies")
app.add_typer(force_fields.app, name="force-fields")
app.add_typer(cluster.app, name="cluster")
app.add_typer(config.app, name="config")
app.add_typer(dashboards.app, name="dashboards")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"elign {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Post-train diffusion models of 3D molecules with force-field rewards (FED-GRPO)."""


def main() -> None:
    """Run the command line; leaves by SystemExit."""
    keep_freed_memory()
    try:
        app(prog_name="elign")
    except ElignError as error:
        if os.environ.get("ELIGN_DEBUG") == "1":
            raise
        # Ray wraps what an actor raised into the same class with the actor's traceback in its text.
        message = getattr(error, "cause", None) or error
        print(f"elign: error: {message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, _INPUT_ERRORS) else 1)
