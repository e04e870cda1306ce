"""The public QM9 archive (Ramakrishnan et al., 2014, figshare collection 978904): download and parsing.

One small XYZ-like file a molecule, numbers sometimes written as ``1.5*^-6``. The 3,054 molecules on the
authors' own list of uncharacterized ones are dropped, as everyone does.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers as number_of

from elign.common.download import Progress, RemoteFile, fetch
from elign.common.errors import DataError
from elign.common.molecules import Molecules

_FIGSHARE = "https://ndownloader.figshare.com/files"

PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""Scalars of each file: A, B, C in GHz, mu in D, alpha in bohr³, r2 in bohr², Cv in cal/(mol K), else Ha."""


@dataclass(frozen=True)
class Qm9Source:
    """Where the archive and the list of uncharacterized molecules are."""

    archive: RemoteFile
    uncharacterized: RemoteFile


PUBLIC_QM9 = Qm9Source(
    RemoteFile(
        "dsgdb9nsd.xyz.tar.bz2", f"{_FIGSHARE}/3195389", 86_144_227, "ad1ebd51ee7f5b3a6e32e974e5d54012"
    ),
    RemoteFile("uncharacterized.txt", f"{_FIGSHARE}/3195404", 486_752, "a361887bacb427b8a0ce7903d92a53b4"),
)


def download_qm9(
    folder: Path, source: Qm9Source = PUBLIC_QM9, progress: Progress | None = None
) -> tuple[Molecules, dict[str, np.ndarray]]:
    """The characterized molecules in the archive's order, and properties name -> [B] (``index`` from 1).

    Raises DataError when the download fails or a file in the archive is not as documented.
    """
    archive = fetch(source.archive, folder, progress)
    listed = fetch(source.uncharacterized, folder, progress).read_text(encoding="utf-8")
    dropped = {
        int(words[0]) for words in map(str.split, listed.splitlines()) if words and words[0].isdecimal()
    }
    return read_archive(archive, dropped)


def read_archive(path: Path, dropped: set[int]) -> tuple[Molecules, dict[str, np.ndarray]]:
    """Parse a tar.bz2 of QM9 files without unpacking it, leaving out the indices in ``dropped``."""
    numbers, positions, scalars, indices = [], [], [], []
    try:
        with tarfile.open(path, "r:bz2") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".xyz") else None
                if content is None:
                    continue
                index, z, x, values = _parse(member.name, content.read().decode())
                if index not in dropped:
                    numbers.append(z)
                    positions.append(x)
                    scalars.append(values)
                    indices.append(index)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a readable tar.bz2 archive: {error}") from error
    if not numbers:
        raise DataError(f"{path} holds no molecule")
    columns = np.stack(scalars, axis=1)
    properties = {"index": np.array(indices)} | dict(zip(PROPERTIES, columns, strict=True))
    return Molecules.from_lists(numbers, positions), properties


def _parse(name: str, text: str) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(index, elements [n], positions [n, 3] in Å, properties [15]) of one file."""
    try:
        lines = text.splitlines()
        count = int(lines[0])
        tag, index, *scalars = lines[1].split()
        rows = [lines[2 + i].split() for i in range(count)]
        elements = np.array([number_of[row[0]] for row in rows], dtype=np.int64)
        positions = np.array([[_number(word) for word in row[1:4]] for row in rows])
        values = np.array([_number(word) for word in scalars])
        if tag != "gdb" or positions.shape != (count, 3) or len(values) != len(PROPERTIES):
            raise ValueError("wrong number of columns")
        return int(index), elements, positions, values
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{name} in the QM9 archive is not in the documented format: {error}") from error


def _number(word: str) -> float:
    return float(word.replace("*^", "e"))
