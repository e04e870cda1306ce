"""Molecules as an Arrow table and as Parquet: one row a molecule.

Columns: ``atomic_numbers`` list<uint8>, ``positions`` list<float32> (x, y, z of each atom in turn, Å), then
one column for each scalar property.

    numpy.array(row["positions"]).reshape(-1, 3)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elign.common.arrow_files import read_table
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.ragged import from_ragged, to_ragged

_OWN_COLUMNS = ("atomic_numbers", "positions")


def to_arrow(molecules: Molecules, properties: Mapping[str, np.ndarray] | None = None) -> pa.Table:
    """The table of B molecules; properties: name -> [B] numbers, booleans or strings."""
    numbers, positions, lengths = to_ragged(molecules)
    ends = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(lengths, dtype=np.int32)])
    columns = {
        "atomic_numbers": _lists(ends, numbers.astype(np.uint8)),
        "positions": _lists(3 * ends, positions.astype(np.float32).reshape(-1)),
    }
    for name, values in (properties or {}).items():
        if name in _OWN_COLUMNS:
            raise DataError(f"a property cannot be called {name!r}: the column holds the molecule itself")
        columns[name] = pa.array(values)
    return pa.table(columns, metadata={"elign.schema": "molecules/1", "elign.length_unit": "angstrom"})


def from_arrow(table: pa.Table, source: str = "table") -> tuple[Molecules, dict[str, np.ndarray]]:
    """Molecules and properties of a table as ``to_arrow`` makes it (any number type in the lists).

    Raises DataError, naming ``source``, where a column is missing, of another type, or does not fit.
    """
    lists = [_flat_column(table, name, source) for name in _OWN_COLUMNS]
    (numbers, lengths), (coordinates, counts) = lists
    wrong = np.flatnonzero(counts != 3 * lengths)
    if wrong.size:
        i = int(wrong[0])
        raise DataError(
            f"{source}: row {i} has {lengths[i]} atoms but {counts[i]} coordinates, wanted 3 an atom"
        )
    properties = {
        name: table.column(name).to_numpy()
        for name in table.column_names
        if name not in _OWN_COLUMNS and not pa.types.is_nested(table.schema.field(name).type)
    }
    return from_ragged(numbers, coordinates.reshape(-1, 3), lengths), properties


def write_parquet(path: Path, molecules: Molecules, properties: Mapping[str, np.ndarray]) -> None:
    """Not atomic by itself; see ``molecule_io.write_molecules``."""
    pq.write_table(to_arrow(molecules, properties), path, compression="zstd")


def read_parquet(path: Path) -> tuple[Molecules, dict[str, np.ndarray]]:
    """Raises DataError when the file is no Parquet, damaged, or holds something else."""
    return from_arrow(read_table(path), str(path))


def _lists(ends: np.ndarray, values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends, type=pa.int32()), pa.array(values))


def _flat_column(table: pa.Table, name: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """(all values, how many in each row) of a column of lists."""
    if name not in table.column_names:
        raise DataError(f"{source} has no column {name!r}; it has {', '.join(table.column_names) or 'none'}")
    column = table.column(name).combine_chunks()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not _is_number(kind.value_type):
        raise DataError(f"{source}: column {name!r} has type {kind}, wanted a list of numbers")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise DataError(f"{source}: column {name!r} has missing values")
    return values.to_numpy(zero_copy_only=False), column.value_lengths().to_numpy().astype(np.int64)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
