"""DFT answers on disk, so that none is computed twice: a Parquet file that grows molecule by molecule.

One row a molecule and level; a molecule is known by its elements and float32 positions. Columns: ``key``,
``level``, ``atomic_numbers``, ``positions`` (Å), ``energy`` (eV), ``forces`` (eV/Å, x, y, z of each atom in
turn), ``failure``, ``solver``, ``seconds``, ``pyscf``.

    table = DftTable(Path("proof/dft.parquet"))
    table.find(level, structure)            # DftRecord or None
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elign.common.arrow_files import read_table
from elign.common.errors import DataError
from elign.common.scoring import Failure
from elign.common.storage import write_atomic
from elign.reward_server.dft import DftLevel
from elign.reward_server.one_by_one import Structure

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("level", pa.string()),
        ("atomic_numbers", pa.list_(pa.uint8())),
        ("positions", pa.list_(pa.float32())),
        ("energy", pa.float64()),
        ("forces", pa.list_(pa.float64())),
        ("failure", pa.string()),
        ("solver", pa.string()),
        ("seconds", pa.float64()),
        ("pyscf", pa.string()),
    ]
)


@dataclass(frozen=True)
class DftRecord:
    """energy in eV and forces [3n] in eV/Å, or the name of a failure. seconds: by the clock."""

    energy: float | None
    forces: list[float] | None
    failure: str | None
    solver: str | None
    seconds: float
    pyscf: str


class DftTable:
    """All answers in memory (a few hundred bytes a molecule), written whole after each new one."""

    def __init__(self, path: Path) -> None:
        """Raises DataError when ``path`` is there and is no such table."""
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {row["key"]: row for row in self._read()}

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, level: DftLevel, structure: Structure) -> DftRecord | None:
        """What is known of the molecule at this level."""
        row = self._rows.get(_key(level, structure))
        return None if row is None else DftRecord(**{name: row[name] for name in DftRecord.__annotations__})

    def add(self, level: DftLevel, structure: Structure, record: DftRecord) -> None:
        """Put in, in place of an earlier one, and write the file; raises StorageError."""
        key, (numbers, positions) = _key(level, structure), structure
        where = {"atomic_numbers": numbers.tolist(), "positions": _float32(positions).reshape(-1).tolist()}
        self._rows[key] = {"key": key, "level": level.label} | where | asdict(record)
        write_atomic(self.path, self._write)

    def _write(self, temporary: Path) -> None:
        pq.write_table(
            pa.Table.from_pylist(list(self._rows.values()), schema=_SCHEMA), temporary, compression="zstd"
        )

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        table = read_table(self.path)
        if not table.schema.equals(_SCHEMA):
            raise DataError(f"{self.path} is no table of DFT answers; it has {', '.join(table.column_names)}")
        yield from table.to_pylist()


def failure_of(record: DftRecord) -> Failure | None:
    return None if record.failure is None else Failure(record.failure)


def _key(level: DftLevel, structure: Structure) -> str:
    numbers, positions = structure
    parts = (level.label.encode(), numbers.astype("<u1").tobytes(), _float32(positions).tobytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _float32(positions: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(positions, dtype="<f4")
