"""``elign force-fields``: what can be named as a force field, and how to train one."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.interruption import resumable
from elign.commands.options import AsJson, Device, Overrides

app = typer.Typer(help="List force fields, or train one.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the force fields that can be named: shipped ones, your own, methods, and foundation models.

    \b
    Examples:
      elign force-fields list
      elign force-fields list --json
    """
    from elign.reward_server.registry import list_force_fields

    entries = list_force_fields()
    if as_json:
        rows = [
            {
                "name": entry.name,
                "kind": entry.kind,
                "licence": entry.licence,
                "description": entry.description,
                "path": None if entry.path is None else str(entry.path),
            }
            for entry in entries
        ]
        print(json.dumps(rows, indent=2))
        return
    for entry in entries:
        print(f"{entry.name:<24} {entry.kind:<11} {entry.description} ({entry.licence})")


@app.command()
def train(
    data: Annotated[
        str,
        typer.Option(
            help="Molecules near equilibrium: qm9, or .npz (QM9 layout), .extxyz, .xyz, .sdf, .parquet."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Name to call it by from now on, or a folder to write (with a /).")
    ],
    samples: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE, may be repeated: molecules that a policy made (elign sample), labelled as they "
            "are and near by; the report has rows for each name."
        ),
    ] = None,
    overrides: Overrides = None,
    device: Device = "auto",
) -> None:
    """Train a small MACE on GFN2-xTB labels of molecules with H, C, N, O and F.

    The molecules are displaced and broken besides, so that the force field is right where a policy goes.
    Interrupted, the same command goes on where it was. The result holds a card with its errors on held-out
    structures. Settings for --set: equilibrium, displaced, broken, epochs, channels, r_max, processes and
    others; a wrong one gets the whole list.

    \b
    Examples:
      elign force-fields train --data qm9 --out my-field
      elign sample --policy elign-qm9-small -n 2000 --out made.parquet
      elign force-fields train --data qm9 --samples policy=made.parquet --set processes=8 --out my-field
      elign train --preset laptop --set reward.force_field=my-field --run-dir runs/mine
    """
    from elign.common.config_load import load_settings
    from elign.common.data import load_dataset
    from elign.common.devices import resolve_device
    from elign.common.molecule_io import read_molecules
    from elign.common.progress import show_progress
    from elign.common.user_folder import user_folder
    from elign.reward_server.force_field_settings import ForceFieldTrainingSettings
    from elign.reward_server.force_field_training import train_force_field

    settings = load_settings(ForceFieldTrainingSettings, {}, None, overrides or [])
    chosen = resolve_device(device)
    made = {name: read_molecules(path) for name, path in _named_files(samples or []).items()}
    with show_progress("loading data") as progress:
        molecules = load_dataset(data, progress).molecules
    folder = Path(out) if "/" in out else user_folder() / "force_fields" / out
    command = shlex.join(["elign", *sys.argv[1:]])
    with resumable(command), show_progress("training") as progress:
        metadata = train_force_field(
            settings, molecules, made, folder, command=command, device=chosen, progress=progress
        )
    print(json.dumps({"path": str(folder), **metadata}, indent=2))


def _named_files(given: list[str]) -> dict[str, Path]:
    """NAME=FILE arguments, taken apart; typer.BadParameter names a wrong one."""
    found: dict[str, Path] = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not (name and equals and path) or name in found:
            raise typer.BadParameter(f"--samples {entry}: give NAME=FILE, each name once")
        found[name] = Path(path)
    return found
