"""``elign score``: energies and forces of molecules in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elign.commands.options import Device, ForceFieldName, MoleculeFile


def _is_parquet(path: Path) -> Path:
    # Checked before the work, not after it.
    if path.suffix.lower() != ".parquet":
        raise typer.BadParameter(f"{path} must end in .parquet: the other formats have no place for forces")
    return path


def _options(given: list[str]) -> dict[str, Any]:
    from elign.common.errors import ConfigError
    from elign.common.yaml_files import parse_yaml

    options = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ConfigError(f"--option {text}: wanted NAME=VALUE, for example --option method=GFN2-xTB")
        options[name] = parse_yaml(value, f"--option {name}")
    return options


def score(
    molecules: MoleculeFile,
    out: Annotated[Path, typer.Option(help="Parquet file to write.", callback=_is_parquet)],
    force_field: ForceFieldName = "elign-mace-small",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Keyword argument of an ase: calculator; may be repeated."),
    ] = None,
    double: Annotated[bool, typer.Option("--double", help="Compute in float64.")] = False,
    device: Device = "auto",
) -> None:
    """Energies and forces of the molecules in a file, as columns of a Parquet file.

    The columns are energy (eV), formation_energy (eV/atom), rms_force and max_force (eV/Å), forces, and
    failure: why a molecule could not be judged, empty where it could. What the input says of its molecules
    is kept. The exit code is 0 even if molecules failed; the last line counts them.

    \b
    Examples:
      elign score molecules.extxyz --force-field elign-mace-small --out scored.parquet
      elign score molecules.sdf --force-field gfn2-xtb --out scored.parquet
      elign score qm9.npz --double --device cpu --out scored.parquet
      elign score a.xyz --force-field ase:tblite.ase:TBLite --option method=GFN1-xTB --out scored.parquet
    """
    from elign.common.molecule_io import read_molecules_with_properties
    from elign.common.progress import show_progress
    from elign.reward_server.score_file import write_scores
    from elign.samples import open_force_field

    field = open_force_field(force_field, device=device, double=double, options=_options(option or []))
    batch, properties = read_molecules_with_properties(molecules)
    with show_progress("scoring") as progress:
        failures = write_scores(out, field, batch, properties, progress=progress)
    counts = ", ".join(f"{name}: {count}" for name, count in failures.most_common())
    print(f"{len(batch)} molecules in {out}, {failures.total()} failed{f' ({counts})' if counts else ''}")
