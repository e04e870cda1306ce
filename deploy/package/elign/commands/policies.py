"""``elign policies``: what can be named as a policy, and how public checkpoints become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import AsJson

app = typer.Typer(help="List policies, or import public EDM checkpoints.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the shipped policies and those in your own folder.

    \b
    Examples:
      elign policies list
      elign policies list --json
    """
    from elign.common.checkpoint import list_policies

    entries = list_policies()
    if as_json:
        rows = [
            {
                "name": entry.name,
                "path": str(entry.path),
                "num_parameters": entry.num_parameters,
                "num_bytes": entry.num_bytes,
                "metadata": entry.metadata,
            }
            for entry in entries
        ]
        print(json.dumps(rows, indent=2))
        return
    for entry in entries:
        size = f"{entry.num_parameters:,} parameters, {entry.num_bytes / 1e6:.1f} MB"
        print(f"{entry.name:<24} {size:<32} {entry.path}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with args.pickle and generative_model_ema.npy.")],
    out: Annotated[
        str, typer.Option(help="Name to call it by from now on, or a folder to write (with a /).")
    ],
) -> None:
    """Import a public EDM checkpoint; nothing in its pickles is run.

    \b
    Examples:
      elign policies import outputs/edm_qm9 --out edm-qm9
      elign policies import outputs/edm_geom_drugs --out ./policies/geom
    """
    from elign.common.edm_import import import_edm

    print(f"{out} in {import_edm(folder, out)}")
