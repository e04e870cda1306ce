"""Energies and forces of many molecules as a stream, and as a Parquet file that grows chunk by chunk.

field = load_force_field("elign-mace-small")
for molecules, result in score_in_chunks(field, read_molecules("molecules.extxyz")):
    print(result.energy, result.rms_force(molecules.node_mask), result.failures)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from elign.common.molecule_table import to_arrow
from elign.common.molecules import Molecules
from elign.common.scoring import ForceField, ForceFieldResult
from elign.common.storage import write_atomic

CHUNK = 512
"""Molecules a chunk: enough to fill batches with, few enough that a slow method shows progress."""


def score_in_chunks(
    force_field: ForceField,
    molecules: Molecules,
    *,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Molecules, ForceFieldResult]]:
    """Each chunk and its answers, in order; memory for answers does not grow with the number of molecules."""
    for start in range(0, len(molecules), chunk):
        part = molecules[start : start + chunk]
        yield part, force_field.evaluate(part)
        if progress is not None:
            progress(start + len(part), len(molecules))


def score_columns(
    molecules: Molecules, result: ForceFieldResult
) -> dict[str, list[float] | list[str | None]]:
    """name -> [B]: energy (eV), formation_energy (eV/atom), rms_force and max_force (eV/Å), failure.

    A molecule that failed has NaN and the name of its failure, any other no failure.
    """
    length = torch.linalg.vector_norm(result.forces, dim=-1)
    return {
        "energy": result.energy.tolist(),
        "formation_energy": result.formation_energy.tolist(),
        "rms_force": result.rms_force(molecules.node_mask.cpu()).tolist(),
        "max_force": (length.amax(1) if length.shape[1] else length.sum(1)).tolist(),
        "failure": [None if failure is None else str(failure) for failure in result.failures],
    }


def write_scores(
    path: Path,
    force_field: ForceField,
    molecules: Molecules,
    properties: Mapping[str, np.ndarray],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Counter[str]:
    """A Parquet file of the molecules, their ``properties`` [B], ``score_columns`` and ``forces``, whole or
    not at all.

    forces: a list<float> a molecule, x, y, z of each atom in turn, eV/Å. A property called like one of these
    columns gives way. Returns how often each failure occurred. Raises StorageError when writing fails.
    """
    failures: Counter[str] = Counter()

    def write(temporary: Path) -> None:
        writer: pq.ParquetWriter | None = None
        done = 0
        for part, result in score_in_chunks(force_field, molecules, progress=progress):
            own = {name: values[done : done + len(part)] for name, values in properties.items()}
            done += len(part)
            table = _table(part, result, own)
            failures.update(name for name in table.column("failure").to_pylist() if name is not None)
            writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()

    write_atomic(path, write)
    return failures


def _table(part: Molecules, result: ForceFieldResult, properties: Mapping[str, np.ndarray]) -> pa.Table:
    scores = score_columns(part, result)
    failure = pa.array(scores.pop("failure"), type=pa.string())  # a chunk without any must have the same type
    kept = {name: values for name, values in properties.items() if name not in (*scores, "failure", "forces")}
    table = to_arrow(part, kept | {name: np.array(values) for name, values in scores.items()})
    table = table.append_column("failure", failure)
    flat = result.forces[part.node_mask.cpu()].float().numpy().reshape(-1)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), 3 * part.num_atoms.cpu().cumsum(0)])
    lists = pa.ListArray.from_arrays(pa.array(ends.numpy(), type=pa.int32()), pa.array(flat))
    return table.append_column("forces", lists)
