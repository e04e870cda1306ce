"""GFN2-xTB labels of training structures, kept in Parquet files so that an interrupted run goes on.

Structures are labelled in parts of fixed size; a part's file is named by a digest of what it holds, so a
part that was labelled once is never labelled again, and more structures only add parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import minimize

from elign.common.arrow_files import read_table
from elign.common.errors import DataError
from elign.common.scoring import Failure
from elign.common.storage import write_atomic
from elign.common.threads import one_thread
from elign.reward_server.one_by_one import SinglePoint
from elign.reward_server.structures import Structure
from elign.reward_server.xtb import Calculation, map_in_processes

PART_SIZE = 500
_MAX_RELAX_STEPS = 60
_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("source", pa.int64()),
        ("atomic_numbers", pa.list_(pa.int64())),
        ("positions", pa.list_(pa.float64())),
        ("energy", pa.float64()),
        ("forces", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True)
class Label:
    """A labelled structure: positions [n, 3] Å, energy eV, forces [n, 3] eV/Å."""

    kind: str
    source: int
    atomic_numbers: np.ndarray
    positions: np.ndarray
    energy: float
    forces: np.ndarray


def label_structures(
    structures: Sequence[Structure],
    folder: Path,
    *,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Label]:
    """Labels of all structures that GFN2-xTB can compute, in order; parts in ``folder`` are read back.

    A structure whose calculation does not converge has no label. progress(done, total) counts structures.
    """
    cuts = [structures[start : start + PART_SIZE] for start in range(0, len(structures), PART_SIZE)]
    parts = {folder / f"labels_{_digest(part)}.parquet": part for part in cuts}
    missing = {path for path in parts if not path.exists()}
    made = _made([s for path, part in parts.items() if path in missing for s in part], processes)
    labels: list[Label] = []
    done = 0
    for path, part in parts.items():
        if path in missing:
            _write_part(path, [label for some in islice(made, len(part)) for label in some])
        labels += _read_part(path)
        done += len(part)
        if progress is not None:
            progress(done, len(structures))
    return labels


def read_labels(folder: Path) -> list[Label]:
    """All labels that are kept in a folder. Raises DataError for a damaged file."""
    return [label for path in sorted(folder.glob("labels_*.parquet")) for label in _read_part(path)]


def label_structure(structure: Structure) -> list[Label]:
    """One label; three where the structure is to be relaxed; none where GFN2-xTB does not converge."""
    calculation = Calculation(structure.atomic_numbers, structure.positions)
    if not structure.relax:
        answers = [(structure.kind, structure.positions, calculation(structure.positions))]
    else:
        with one_thread():  # SciPy's minimizer calls BLAS between energies
            answers = _relaxed(calculation, structure)
    return [
        Label(kind, structure.source, structure.atomic_numbers, x, answer[0], answer[1])
        for kind, x, answer in answers
        if not isinstance(answer, Failure)
    ]


def _relaxed(
    calculation: Calculation, structure: Structure
) -> list[tuple[str, np.ndarray, SinglePoint | Failure]]:
    """A structure halfway to the minimum, the minimum, and one a few hundredths of an Å beside it."""
    rng = np.random.default_rng(structure.seed)
    shape = structure.positions.shape
    path = [structure.positions]

    def energy_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        answer = calculation(flat.reshape(shape))
        if isinstance(answer, Failure):
            return np.inf, np.zeros_like(flat)
        return answer[0], -answer[1].ravel()

    minimize(
        energy_and_gradient,
        structure.positions.ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=lambda flat: path.append(flat.reshape(shape).copy()),
        options={"maxiter": _MAX_RELAX_STEPS, "gtol": 1e-3, "ftol": 0.0},
    )
    beside = path[-1] + rng.uniform(0.005, 0.04) * rng.standard_normal(shape)
    off_minimum = "near" if structure.kind == "relaxed" else structure.kind
    found = ((off_minimum, path[min(len(path) // 3, 4)]), (structure.kind, path[-1]), (off_minimum, beside))
    return [(kind, x, calculation(x)) for kind, x in found]


def _made(structures: Sequence[Structure], processes: int) -> Iterator[list[Label]]:
    """Labels of one structure after another, made as they are asked for or ahead by processes."""
    if processes == 1:
        return map(label_structure, structures)
    return map_in_processes(label_structure, structures, processes)


def _digest(part: Sequence[Structure]) -> str:
    digest = hashlib.sha256()
    for s in part:
        digest.update(f"{s.kind} {s.source} {s.relax} {s.seed}".encode())
        digest.update(np.asarray(s.atomic_numbers, dtype=np.int64).tobytes())
        digest.update(np.asarray(s.positions, dtype=np.float64).tobytes())
    return digest.hexdigest()[:16]


def _write_part(path: Path, labels: Sequence[Label]) -> None:
    columns = {
        "kind": [label.kind for label in labels],
        "source": [label.source for label in labels],
        "atomic_numbers": [label.atomic_numbers for label in labels],
        "positions": [label.positions.astype(np.float64).ravel() for label in labels],
        "energy": [label.energy for label in labels],
        "forces": [label.forces.ravel() for label in labels],
    }
    table = pa.table(columns, schema=_SCHEMA)
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _read_part(path: Path) -> list[Label]:
    try:
        rows = read_table(path).cast(_SCHEMA).to_pylist()
    except (DataError, ValueError, OSError) as error:
        raise DataError(f"labels {path} cannot be read ({error}); delete this file and run again") from error
    return [
        Label(
            row["kind"],
            row["source"],
            np.array(row["atomic_numbers"]),
            np.array(row["positions"]).reshape(-1, 3),
            row["energy"],
            np.array(row["forces"]).reshape(-1, 3),
        )
        for row in rows
    ]
