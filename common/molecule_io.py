"""Molecules in files and in other libraries: the suffix of a path decides the format.

``.parquet`` (also the run directory's own samples), ``.extxyz``, ``.xyz`` and ``.sdf`` are read and written,
``.npz`` in the usual QM9 layout is read. Scalar properties, name -> [B], travel along in all but plain
``.xyz``.

    write_molecules("molecules.extxyz", molecules, {"rms_force": rms_force})
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from torch import Tensor

from elign.common.errors import DataError
from elign.common.molecule_table import read_parquet, write_parquet
from elign.common.molecules import Molecules
from elign.common.sdf_format import read_sdf, write_sdf
from elign.common.storage import write_atomic
from elign.common.xyz_format import read_xyz, write_xyz

Properties = Mapping[str, np.ndarray | Tensor | Sequence[float | int | bool | str | None]]
_Writer = Callable[[Path, Molecules, Mapping[str, np.ndarray]], None]
_HEAVIEST = 118


def to_ase(molecules: Molecules) -> list[Atoms]:
    """One ASE ``Atoms`` a molecule, no cell."""
    return [Atoms(numbers=numbers, positions=positions) for numbers, positions in molecules.arrays()]


def from_ase(atoms: Sequence[Atoms]) -> Molecules:
    """Elements and positions; cells, charges and calculators are left behind."""
    return Molecules.from_lists([a.numbers for a in atoms], [a.positions for a in atoms])


def write_molecules(path: Path | str, molecules: Molecules, properties: Properties | None = None) -> None:
    """Write a file in the format of its suffix, whole or not at all.

    properties: name -> [B] numbers, booleans or strings; plain .xyz has no place for them. Raises DataError
    for an unknown suffix or properties of another length, StorageError when writing fails.
    """
    path = Path(path)
    columns = {name: _column(name, values, len(molecules)) for name, values in (properties or {}).items()}
    writers: dict[str, _Writer] = {
        ".parquet": write_parquet,
        ".extxyz": partial(write_xyz, extended=True),
        ".xyz": partial(write_xyz, extended=False),
        ".sdf": write_sdf,
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise DataError(f"cannot write {path}: the suffix must be one of {', '.join(writers)}")
    write_atomic(path, lambda temporary: writer(temporary, molecules, columns))


def read_molecules(path: Path | str) -> Molecules:
    """The molecules of a file in any of the formats; see ``read_molecules_with_properties``."""
    return read_molecules_with_properties(path)[0]


def read_molecules_with_properties(path: Path | str) -> tuple[Molecules, dict[str, np.ndarray]]:
    """Molecules (float32 positions in Å) and the scalar properties, name -> [B], that all of them have.

    Coordinates may be non-finite (a judge of molecules names such failures); elements must be real. Raises
    DataError naming the file and what is wrong with it.
    """
    path = Path(path)
    readers = {
        ".parquet": read_parquet,
        ".extxyz": read_xyz,
        ".xyz": read_xyz,
        ".sdf": read_sdf,
        ".npz": read_npz,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"cannot read {path}: the suffix must be one of {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    molecules, properties = reader(path)
    _check(path, molecules)
    return molecules, properties


def read_npz(path: Path) -> tuple[Molecules, dict[str, np.ndarray]]:
    """The usual QM9 layout: num_atoms [B], charges [B, N], positions [B, N, 3] in Å, and [B] properties."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file without pickles: {error}") from error
    missing = [name for name in ("num_atoms", "charges", "positions") if name not in arrays]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}")
    lengths, charges, positions = (arrays.pop(name) for name in ("num_atoms", "charges", "positions"))
    padded = charges.shape[1] if charges.ndim == 2 else 0
    if (
        lengths.shape != charges.shape[:1]
        or positions.shape != (*charges.shape, 3)
        or lengths.max(initial=0) > padded
    ):
        raise DataError(
            f"{path}: num_atoms {lengths.shape}, charges {charges.shape} and positions {positions.shape} do "
            "not fit together; wanted [B], [B, N], [B, N, 3] with num_atoms at most N"
        )
    mask = np.arange(padded) < lengths[:, None]
    rows = range(len(lengths))
    molecules = Molecules.from_lists(
        [charges[i][mask[i]] for i in rows], [positions[i][mask[i]] for i in rows]
    )
    return molecules, {name: values for name, values in arrays.items() if values.shape == lengths.shape}


def _check(path: Path, molecules: Molecules) -> None:
    if not len(molecules):
        raise DataError(f"{path} holds no molecule")
    empty = (molecules.num_atoms == 0).nonzero()
    if len(empty):
        raise DataError(f"{path}: molecule {int(empty[0])} has no atoms")
    unreal = ((molecules.atomic_numbers < 1) | (molecules.atomic_numbers > _HEAVIEST)) & molecules.node_mask
    if unreal.any():
        i, j = unreal.nonzero()[0].tolist()
        number = int(molecules.atomic_numbers[i, j])
        raise DataError(f"{path}: molecule {i} has an atom of number {number}, which is no element")


def _column(name: str, values: np.ndarray | Tensor | Sequence[object], count: int) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (count,):
        raise DataError(f"property {name!r} has shape {array.shape}, but there are {count} molecules")
    return array
