"""Data sets of molecules by name or by path, and their split.

data = load_dataset("molecules.npz")       # .npz, .extxyz, .xyz, .sdf, .parquet, or the name qm9
train, validation = split_indices(len(data.molecules), validation_fraction=0.1, seed=0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elign.common.download import Progress, cache_folder
from elign.common.errors import DataError
from elign.common.molecule_io import read_molecules_with_properties, write_molecules
from elign.common.molecules import Molecules
from elign.common.qm9_archive import PUBLIC_QM9, Qm9Source, download_qm9
from elign.common.ragged import to_ragged


@dataclass(frozen=True)
class MoleculeData:
    """A data set in memory.

    name: qm9, or the file's name without suffix. source: where it came from. sha256: of the molecules
    themselves (sizes, elements, float32 positions), so the same molecules in another format have the same.
    properties: name -> [B] scalars.
    """

    molecules: Molecules
    name: str
    source: str
    sha256: str
    properties: Mapping[str, np.ndarray]


def load_dataset(
    name_or_path: str | Path, progress: Progress | None = None, qm9_source: Qm9Source = PUBLIC_QM9
) -> MoleculeData:
    """The data set of a name (``qm9``: downloaded once into the cache) or of a file, by suffix.

    Raises DataError when there is no such name or file, or when the content is no set of real molecules
    (unknown elements, coordinates that are not finite).
    """
    if str(name_or_path) == "qm9":
        return _qm9(cache_folder() / "qm9", qm9_source, progress)
    path = Path(name_or_path)
    if not path.suffix:
        raise DataError(
            f"unknown data set {str(name_or_path)!r}: give qm9, or a file .npz, .extxyz, .xyz, .sdf, .parquet"
        )
    return _from_file(path, path.stem, str(path))


def split_indices(count: int, *, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation) ascending indices of ``count`` molecules, the same for the same seed.

    At least one molecule stays in each part; raises DataError when that cannot be.
    """
    if count < 2:
        raise DataError(f"{count} molecules cannot be split into training and validation")
    validation = min(max(round(count * validation_fraction), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])


def content_sha256(molecules: Molecules) -> str:
    """Hexadecimal SHA-256 of sizes, elements and float32 positions; padding does not matter."""
    numbers, positions, lengths = to_ragged(molecules)
    digest = hashlib.sha256()
    for array, kind in ((lengths, "<i8"), (numbers, "<u1"), (positions, "<f4")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


def _qm9(folder: Path, source: Qm9Source, progress: Progress | None) -> MoleculeData:
    """Parsing takes a minute or two, so its result is kept beside the archive."""
    parsed = folder / "qm9.parquet"
    if not parsed.is_file():
        molecules, properties = download_qm9(folder, source, progress)
        write_molecules(parsed, molecules, properties)
    return _from_file(parsed, "qm9", source.archive.url)


def _from_file(path: Path, name: str, source: str) -> MoleculeData:
    molecules, properties = read_molecules_with_properties(path)
    bad = (~molecules.positions.isfinite().all(-1) & molecules.node_mask).any(1).nonzero()
    if len(bad):
        raise DataError(f"{path}: molecule {int(bad[0])} has coordinates that are not finite")
    return MoleculeData(molecules, name, source, content_sha256(molecules), properties)
