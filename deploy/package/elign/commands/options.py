"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Preset = Annotated[
    str | None, typer.Option("--preset", help="Where to start from: laptop, paper-qm9 or paper-geom.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings; they replace those of the preset.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in run.iterations=10; may be repeated."),
]
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="Address of the cluster's dashboard, as elign cluster up shows it.",
    ),
]
LOCAL_CLUSTER = "http://127.0.0.1:8265"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PolicyName = Annotated[
    str,
    typer.Option("--policy", help="Name of a policy (elign policies list), policy folder, or run directory."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="One seed, one result.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Denoising steps; by default those the policy was trained for."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
MoleculeFile = Annotated[
    Path, typer.Argument(help="File to read: .extxyz, .xyz, .sdf, .parquet, or .npz (QM9 layout).")
]
ForceFieldName = Annotated[
    str,
    typer.Option("--force-field", help="A name (elign force-fields list), a path, or ase:MODULE:CLASS."),
]
