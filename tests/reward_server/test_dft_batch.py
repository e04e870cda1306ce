"""Many molecules by DFT: named failures beforehand, answers from the table, nothing computed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure
from elign.reward_server.dft import DftLevel
from elign.reward_server.dft_batch import DftBatch
from elign.reward_server.dft_table import DftRecord, DftTable

LEVEL = DftLevel("b3lyp", "6-31g(2df,p)")


def _record(energy: float, atoms: int, force: float = 0.0) -> DftRecord:
    return DftRecord(energy, [force, 0.0, 0.0] * atoms, None, "diis", 1.0, "2.14")


def _failed(failure: Failure, seconds: float) -> DftRecord:
    return DftRecord(None, None, str(failure), None, seconds, "2.14")


def test_what_dft_cannot_treat_is_named_without_a_calculation(tmp_path: Path) -> None:
    bad = Molecules.from_lists(
        [np.array(z) for z in ([6, 1], [6, 1], [6, 1], [6, 53], [6] * 12, [6])],
        [
            np.array([[0.0, 0, 0], [0, 0, 0.1]]),
            np.array([[0.0, 0, 0], [0, 0, 9.0]]),
            np.array([[np.nan, 0, 0], [0, 0, 1.0]]),
            np.array([[0.0, 0, 0], [0, 0, 2.1]]),
            np.array([[0.0, 0, 1.4 * i] for i in range(12)]),
            np.zeros((1, 3)),
        ],
    )
    batch = DftBatch(bad, LEVEL, max_atoms=10)
    names = [
        "atoms_too_close",
        "several_pieces",
        "non_finite_coordinates",
        "unsupported_element",
        "too_many_atoms",
        "fewer_than_two_atoms",
    ]
    assert [str(f) for f in batch.failures] == names
    assert list(batch.missing(DftTable(tmp_path / "dft.parquet"), time_limit_s=9)) == []


def test_answers_are_put_together_from_the_table(tmp_path: Path, molecules: Molecules) -> None:
    table, batch = DftTable(tmp_path / "dft.parquet"), DftBatch(molecules[:2], LEVEL, max_atoms=60)
    for structure in list(batch.missing(table, time_limit_s=9)):
        numbers = structure[0]
        energy = -10.0 * float(numbers.sum()) - (0.5 * len(numbers) if len(numbers) > 1 else 0.0)
        table.add(LEVEL, structure, _record(energy, len(numbers), 0.2 if len(numbers) > 1 else 0.0))
    result = batch.result(table)
    assert result.failures == (None, None)
    assert result.energy.tolist() == pytest.approx([-102.5, -101.5])
    assert result.formation_energy.tolist() == pytest.approx([-0.5, -0.5])
    assert result.rms_force(molecules[:2].node_mask).tolist() == pytest.approx([0.2, 0.2])


def test_nothing_is_computed_twice_after_an_interruption(tmp_path: Path, molecules: Molecules) -> None:
    path, batch = tmp_path / "dft.parquet", DftBatch(molecules, LEVEL, max_atoms=60)
    first = list(batch.missing(DftTable(path), time_limit_s=9))
    assert [len(numbers) for numbers, _ in first] == [1, 1, 1, 5, 3, 6]  # H, C, O, then the molecules
    DftTable(path).add(LEVEL, first[0], _record(-13.0, 1))
    again = DftTable(path)
    again.add(LEVEL, first[4], _failed(Failure.NOT_CONVERGED, 5.0))
    rest = list(batch.missing(DftTable(path), time_limit_s=9))
    assert [len(numbers) for numbers, _ in rest] == [1, 1, 5, 6]
    assert (
        len(list(DftBatch(molecules, DftLevel("pbe", "6-31g*"), max_atoms=60).missing(again, time_limit_s=9)))
        == 6
    )


def test_only_a_longer_limit_tries_again(tmp_path: Path, molecules: Molecules) -> None:
    table, batch = DftTable(tmp_path / "dft.parquet"), DftBatch(molecules[:1], LEVEL, max_atoms=60)
    for structure in list(batch.missing(table, time_limit_s=9)):
        table.add(LEVEL, structure, _failed(Failure.TIME_LIMIT, 10.0))
    assert list(batch.missing(table, time_limit_s=10)) == []
    assert len(list(batch.missing(table, time_limit_s=20))) == 3
    assert batch.result(table).failures == (Failure.TIME_LIMIT,)
    for structure in list(batch.missing(table, time_limit_s=20)):
        table.add(LEVEL, structure, _failed(Failure.WORKER_DIED, 1.0))
    assert len(list(batch.missing(table, time_limit_s=1))) == 3
    assert torch.isnan(batch.result(table).energy).all()


def test_a_foreign_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dft.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        DftTable(path)
