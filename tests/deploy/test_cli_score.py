"""Promises of ``elign score``: a row for every molecule, forces and named failures, any readable file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from elign.common.molecule_io import read_molecules, read_molecules_with_properties, write_molecules
from elign.common.molecules import Molecules
from elign.reward_server.registry import load_force_field
from elign.reward_server.score_file import score_in_chunks, write_scores

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]))
METHANE = (
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
    ),
)


def some_molecules() -> Molecules:
    """Water, methane, hydrogen atoms on top of each other, a lone oxygen, silane's silicon with one H."""
    close = (np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.01]]))
    lone = (np.array([8]), np.zeros((1, 3)))
    unknown = (np.array([14, 1]), np.array([[0.0, 0, 0], [0, 0, 1.5]]))
    chosen = (WATER, METHANE, close, lone, unknown)
    return Molecules.from_lists([z for z, _ in chosen], [x for _, x in chosen])


@pytest.mark.parametrize("suffix", [".extxyz", ".sdf", ".parquet"])
def test_every_molecule_gets_a_row_and_failures_have_names(elign: Elign, tmp_path: Path, suffix: str) -> None:
    molecules = some_molecules()
    write_molecules(tmp_path / f"in{suffix}", molecules, {"serial": [10, 11, 12, 13, 14]})
    done = elign("score", f"in{suffix}", "--force-field", "elign-mace-small", "--out", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert re.match(r"5 molecules in out.parquet, 3 failed \(.*atoms_too_close: 1.*\)", done.stdout)
    assert "scoring 5/5" in done.stderr
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["failure"] for row in rows] == [
        None,
        None,
        "atoms_too_close",
        "fewer_than_two_atoms",
        "unsupported_element",
    ]
    assert [row["serial"] for row in rows] == [10, 11, 12, 13, 14]
    read = read_molecules(tmp_path / f"in{suffix}")
    expected = load_force_field("elign-mace-small").evaluate(read)
    for i in (0, 1):
        assert rows[i]["energy"] == pytest.approx(float(expected.energy[i]), abs=1e-4)
        forces = np.array(rows[i]["forces"]).reshape(-1, 3)
        np.testing.assert_allclose(forces, expected.forces[i, : len(forces)].numpy(), atol=1e-4)
        assert rows[i]["max_force"] == pytest.approx(np.linalg.norm(forces, axis=1).max(), rel=1e-5)
    assert np.isnan(rows[2]["energy"])
    assert np.isnan(rows[2]["forces"]).all()


def test_a_scored_file_can_be_scored_again_by_another_force_field(elign: Elign, tmp_path: Path) -> None:
    write_molecules(tmp_path / "in.xyz", some_molecules()[:2])
    elign("score", "in.xyz", "--out", "first.parquet")
    calculator = (
        "--force-field",
        "ase:tblite.ase:TBLite",
        "--option",
        "method=GFN2-xTB",
        "--option",
        "verbosity=0",
    )
    done = elign("score", "first.parquet", *calculator, "--out", "second.parquet")
    assert done.returncode == 0, done.stderr
    _, properties = read_molecules_with_properties(tmp_path / "second.parquet")
    expected = load_force_field("gfn2-xtb").evaluate(some_molecules()[:2])
    np.testing.assert_allclose(properties["energy"], expected.energy.numpy(), atol=1e-4)


def test_chunks_are_a_stream_that_covers_everything_in_order(tmp_path: Path) -> None:
    field = load_force_field("elign-mace-small", dtype="float64")
    molecules = some_molecules()[[0, 1, 2] * 5]
    seen: list[tuple[int, int]] = []
    parts = list(score_in_chunks(field, molecules, chunk=4, progress=lambda *now: seen.append(now)))
    assert seen == [(4, 15), (8, 15), (12, 15), (15, 15)]
    whole = field.evaluate(molecules)
    assert torch.allclose(
        torch.cat([r.energy for _, r in parts]), whole.energy, equal_nan=True, rtol=0, atol=1e-9
    )
    failures = write_scores(tmp_path / "out.parquet", field, molecules, {})
    assert failures == {"atoms_too_close": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.xyz", "--out", "out.csv"), ".parquet"),
        (("nothing.xyz", "--out", "out.parquet"), "nothing.xyz"),
        (("in.xyz", "--force-field", "nothing", "--out", "out.parquet"), "no force field 'nothing'"),
        (("in.xyz", "--option", "method", "--out", "out.parquet"), "NAME=VALUE"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(
    elign: Elign, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_molecules(tmp_path / "in.xyz", some_molecules()[:1])
    done = elign("score", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    write_molecules(tmp_path / "in.parquet", some_molecules()[[1] * 40_000])
    command = [sys.executable, "-m", "elign", "score", "in.parquet", "--force-field", "gfn2-xtb"]
    process = subprocess.Popen(
        [*command, "--out", "out.parquet"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "scoring" in process.stderr.readline()
    for _ in range(5):  # one that falls into a callback of a compiled library may be lost
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_the_readmes_example_in_one_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?score_in_chunks.*?)```", readme, re.DOTALL)
    write_molecules(tmp_path / "molecules.extxyz", some_molecules()[:2])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert "(None, None)" in capsys.readouterr().out
