"""``elign sample``: molecules from a policy into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import Device, PolicyName, Seed, Steps

_SUFFIXES = (".extxyz", ".xyz", ".sdf", ".parquet")


def _known_suffix(path: Path) -> Path:
    # Checked before the work, not after it.
    if path.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"the suffix of {path} must be one of {', '.join(_SUFFIXES)}")
    return path


def sample(
    policy: PolicyName,
    out: Annotated[
        Path,
        typer.Option(
            help=f"File to write; its suffix decides: {', '.join(_SUFFIXES)}.", callback=_known_suffix
        ),
    ],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many molecules.")] = 100,
    seed: Seed = 0,
    steps: Steps = None,
    num_atoms: Annotated[
        int | None,
        typer.Option(min=2, help="Atoms of every molecule; by default drawn as in the training data."),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A conditional policy's property, normalized as in its training; may be repeated.",
        ),
    ] = None,
    predict_at: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop at this time (of 1000, which is noise) and write the clean molecules predicted from "
            "there: what training asks a force field about.",
        ),
    ] = 0,
    formula: Annotated[
        str | None,
        typer.Option(help="Composition of every molecule, as in C7H10O2."),
    ] = None,
    force_field: Annotated[
        str, typer.Option(help="Also write energy and RMS force by this force field; none: do not.")
    ] = "none",
    device: Device = "auto",
) -> None:
    """Sample molecules from a policy. No force field is needed for that.

    \b
    Examples:
      elign sample --policy runs/first -n 100 --out molecules.extxyz
      elign sample --policy elign-qm9-small -n 1000 --seed 7 --steps 50 --out molecules.sdf
      elign sample --policy runs/first -n 20 --num-atoms 19 --out molecules.parquet
      elign sample --policy runs/first -n 50 --formula C7H10O2 --out isomers.sdf
      elign sample --policy runs/first -n 50 --force-field elign-mace-small --out scored.extxyz
    """
    from elign.common.errors import ConfigError, DataError
    from elign.common.molecule_io import write_molecules
    from elign.common.progress import show_progress
    from elign.common.prompts import parse_formula
    from elign.samples import (
        draw_sizes,
        force_field_columns,
        open_force_field,
        open_policy,
        parse_conditions,
        sample_sizes,
    )

    if formula is not None and num_atoms is not None:
        raise ConfigError("--formula and --num-atoms exclude each other: a formula says how many atoms")
    source = open_policy(policy, device=device, num_steps=steps)
    judge = None if force_field == "none" else open_force_field(force_field, device=device)
    elements = None if formula is None else parse_formula(formula, source.policy.spec.dataset)
    size = num_atoms if elements is None else len(elements)
    sizes = draw_sizes(source.policy, number, seed) if size is None else [size] * number
    with show_progress("sampling") as progress:
        molecules = sample_sizes(
            source,
            sizes,
            seed=seed,
            predict_at=predict_at,
            elements=elements,
            conditions=parse_conditions(condition or [], source.policy),
            progress=progress,
        )
    columns = force_field_columns(judge, molecules) if judge else None
    try:
        write_molecules(out, molecules, columns)
    except DataError as error:
        # Such as coordinates too far out for SDF: the work is not thrown away.
        rescued = out.with_suffix(".parquet")
        write_molecules(rescued, molecules, columns)
        raise DataError(f"{error}; the molecules are in {rescued}") from error
    print(f"{number} molecules ({source.num_steps} steps, seed {seed}) in {out}")
