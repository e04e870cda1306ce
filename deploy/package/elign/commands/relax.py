"""``elign relax``: molecules in a file to their nearest minimum, and how far that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import Device, ForceFieldName, MoleculeFile


def _writable(path: Path) -> Path:
    # Checked before the work, not after it.
    if path.suffix.lower() not in (".extxyz", ".sdf", ".parquet"):
        raise typer.BadParameter(f"{path} must end in .extxyz, .sdf or .parquet")
    return path


def relax(
    molecules: MoleculeFile,
    out: Annotated[Path, typer.Option(help="File to write, .extxyz, .sdf or .parquet.", callback=_writable)],
    force_field: ForceFieldName = "elign-mace-small",
    max_force: Annotated[
        float, typer.Option(min=1e-4, help="Done when no atom feels more than this, eV/Å.")
    ] = 0.05,
    max_steps: Annotated[int, typer.Option(min=1, help="The most steps a molecule gets.")] = 200,
    device: Device = "auto",
) -> None:
    """Relax the molecules in a file, all at once, by a force field.

    Written beside each: energy_drop (eV/atom from the first to the last geometry), rmsd (Å moved), steps,
    converged, bonds_kept (the same atoms bonded as before), and failure: why a molecule could not be relaxed.

    \b
    Examples:
      elign relax molecules.extxyz --out relaxed.extxyz
      elign relax molecules.sdf --force-field gfn2-xtb --max-force 0.02 --out relaxed.sdf
    """
    from elign.common.datasets import dataset_of
    from elign.common.molecule_io import Properties, read_molecules, write_molecules
    from elign.common.progress import show_progress
    from elign.reward_server.relaxation import relax as relax_molecules
    from elign.samples import open_force_field

    batch = read_molecules(molecules)
    field = open_force_field(force_field, device=device)
    with show_progress("relaxing") as progress:
        done = relax_molecules(
            field, batch, dataset_of(batch), max_force=max_force, max_steps=max_steps, progress=progress
        )
    columns: Properties = {
        "energy_drop": done.energy_drop,
        "rmsd": done.rmsd,
        "steps": done.steps,
        "converged": done.converged,
        "bonds_kept": done.bonds_kept,
        "failure": [None if failure is None else str(failure) for failure in done.failures],
    }
    write_molecules(out, done.molecules, columns)
    failed = sum(failure is not None for failure in done.failures)
    print(f"{len(batch)} molecules in {out}, {int(done.converged.sum())} relaxed, {failed} failed")
