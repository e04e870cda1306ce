"""Promises of ``elign evaluate``: a table for people, JSON for scripts, the same sizes for both sides."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common.checkpoint import save_policy
from elign.common.molecule_io import from_ase, write_molecules
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.evaluation import open_judges

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ["-n", "6", "--steps", "4", "--force-field", "gfn2-xtb"]


def _save(folder: Path, spec: PolicySpec, seed: int) -> None:
    torch.manual_seed(seed)
    save_policy(DiffusionPolicy(spec), folder, {})


@pytest.fixture
def policies(tmp_path: Path) -> None:
    """Two policies of QM9 and one of GEOM-Drugs, all with random weights."""
    folder, sizes = tmp_path / "home" / "policies", {4: 1, 6: 1}
    _save(folder / "one", PolicySpec(hidden=8, num_layers=1, size_histogram=sizes), 1)
    _save(folder / "two", PolicySpec(hidden=8, num_layers=1, size_histogram=sizes), 2)
    geom = PolicySpec(dataset="geom", includes_charges=False, hidden=8, num_layers=1, size_histogram=sizes)
    _save(folder / "drugs", geom, 3)


@pytest.mark.usefixtures("policies")
def test_one_policy_is_judged(elign: Elign, tmp_path: Path) -> None:
    done = elign("evaluate", "--policy", "one", *SMALL, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    assert "atom stability" in done.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schema"] == "elign.evaluation/1"
    assert result["molecules"] == 6
    assert (result["policy"], result["seed"], result["steps"]) == ("one", 0, 4)
    assert "gfn2-xtb.rms_force" in result["measures"]


@pytest.mark.usefixtures("policies")
def test_a_policy_does_not_differ_from_itself(elign: Elign, tmp_path: Path) -> None:
    done = elign("evaluate", "--policy", "one", "--baseline", "one", *SMALL, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    differences = json.loads((tmp_path / "result.json").read_text())["difference"]
    assert {value["estimate"] for value in differences.values()} <= {0.0, None}


@pytest.mark.usefixtures("policies")
def test_a_baseline_gets_the_same_sizes(elign: Elign, tmp_path: Path) -> None:
    done = elign("evaluate", "--policy", "one", "--baseline", "two", *SMALL, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schema"] == "elign.comparison/1"
    totals = [sum(result[side]["elements"].values()) for side in ("baseline", "trained")]
    assert totals[0] == totals[1]


@pytest.mark.usefixtures("policies")
def test_novelty_is_measured_against_a_file(elign: Elign, tmp_path: Path) -> None:
    assert elign("sample", "--policy", "one", "-n", "6", "--steps", "4", "--out", "known.sdf").returncode == 0
    done = elign("evaluate", "--policy", "one", *SMALL, "--reference", "known.sdf", "--json", "result.json")
    assert done.returncode == 0, done.stderr
    novelty = json.loads((tmp_path / "result.json").read_text())["measures"]["novelty"]
    assert novelty["estimate"] in (0.0, None)


@pytest.mark.usefixtures("policies")
def test_policies_of_different_data_sets_are_not_compared(elign: Elign) -> None:
    done = elign("evaluate", "--policy", "one", "--baseline", "drugs", *SMALL)
    assert done.returncode == 2
    assert "elign: error: drugs has molecules of geom, one has molecules of qm9; only" in done.stderr


def test_both_judges_count_energies_from_the_same_zero() -> None:
    water = Molecules.from_lists(
        [np.array([8, 1, 1])], [np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])]
    )
    own, gfn2 = open_judges(["elign-mace-small", "gfn2-xtb"], "qm9", device="cpu")
    difference = own.evaluate(water).energy - gfn2.evaluate(water).energy
    formation = own.evaluate(water).formation_energy - gfn2.evaluate(water).formation_energy
    assert float(formation) == pytest.approx(float(difference) / 3, abs=1e-6)


def _write_molecules(path: Path, *names: str) -> None:
    write_molecules(path, from_ase([ase_molecule(name) for name in names]))


DATA = ["CH4", "H2O", "NH3", "C2H6", "C2H4", "CH3OH", "HCN", "H2CO", "CO2", "CH3CN"]


def test_files_of_other_generators_are_judged_against_data(elign: Elign, tmp_path: Path) -> None:
    _write_molecules(tmp_path / "data.extxyz", *DATA)
    _write_molecules(tmp_path / "mine.xyz", "CH4", "H2O", "CH3OH")
    _write_molecules(tmp_path / "theirs.sdf", "NH3", "C2H6")
    files = ["--policy", "mine.xyz", "--baseline", "theirs.sdf", "--data", "data.extxyz", "--out", "proof"]
    judges = ["--force-field", "gfn2-xtb", "--relax", "gfn2-xtb"]
    done = elign("evaluate", *files, *judges)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "proof" / "result.json").read_text())
    assert result["paired"] is False
    assert result["difference"]["bond_lengths"]["estimate"] is not None
    assert result["data"]["measures"]["molecule_stability"]["estimate"] == 1.0
    assert result["trained"]["measures"]["relaxed by gfn2-xtb.bonds_kept"]["estimate"] == 1.0
    assert result["made"]["command"].startswith("elign evaluate --policy mine.xyz")
    report = (tmp_path / "proof" / "report.html").read_text()
    for word in ("Typical and worst", "Geometry against the data", "H–C", "How it was made", "<svg"):
        assert word in report
    assert "http" not in report.replace("http://www.w3.org", "")
    table = (tmp_path / "proof" / "table.tex").read_text()
    assert table.count(r"\begin{tabular}") == table.count(r"\end{tabular}") == 1
    assert all(line.endswith(r"\\") for line in table.splitlines()[4:-2])


def test_what_needs_a_folder_or_two_policies_says_so(elign: Elign, tmp_path: Path) -> None:
    _write_molecules(tmp_path / "mine.xyz", "CH4", "H2O")
    for options, message in [
        (["--dft", "fast"], "--dft needs --out DIR"),
        (["--dft", "fats", "--out", "proof"], "DFT level 'fats': wanted fast, qm9-level, omol-like"),
        (["--speed"], "--speed needs two policies"),
    ]:
        done = elign("evaluate", "--policy", "mine.xyz", "--force-field", "gfn2-xtb", *options)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.usefixtures("policies")
def test_a_folder_is_taken_up_only_where_it_was_made_alike(elign: Elign, tmp_path: Path) -> None:
    command = ["evaluate", "--policy", "one", *SMALL, "--out", "proof"]
    assert "sampling one" in elign(*command).stderr
    again = elign(*command)
    assert again.returncode == 0, again.stderr
    assert "sampling one" not in again.stderr
    assert "sampling one" in elign(*command, "--seed", "1").stderr
    assert json.loads((tmp_path / "proof" / "trained.json").read_text())["seed"] == 1


@pytest.mark.usefixtures("policies")
def test_two_policies_are_timed(elign: Elign, tmp_path: Path) -> None:
    done = elign(
        "evaluate", "--policy", "one", "--baseline", "two", *SMALL, "--speed", "--json", "result.json"
    )
    assert done.returncode == 0, done.stderr
    assert "trained / baseline" in done.stdout
    speed = json.loads((tmp_path / "result.json").read_text())["speed"]
    assert speed["ratio"]["low"] <= speed["ratio"]["estimate"] <= speed["ratio"]["high"]


@pytest.mark.slow
def test_dft_runs_on_ray_and_is_not_repeated(elign_process: Elign, tmp_path: Path) -> None:
    _write_molecules(tmp_path / "data.extxyz", "CH4", "H2O", "NH3", "CH3OH")
    apart = Molecules.from_lists([np.array([8, 1])], [np.array([[0.0, 0, 0], [0, 0, 9.0]])])
    write_molecules(tmp_path / "mine.xyz", Molecules.cat([from_ase([ase_molecule("CH3OH")]), apart]))
    command = ["evaluate", "--policy", "mine.xyz", "--data", "data.extxyz", "--force-field", "gfn2-xtb"]
    command += ["--dft", "lda,vwn/sto-3g", "--dft-workers", "2", "--out", "proof"]
    done = elign_process(*command)
    assert done.returncode == 0, done.stderr
    assert re.search(r"DFT, lda,vwn/sto-3g, grid 3 \d+/\d+", done.stderr)
    result = json.loads((tmp_path / "proof" / "result.json").read_text())
    assert result["failures"]["dft"] == {"several_pieces": 1}
    assert result["measures"]["dft.judged"]["estimate"] == 0.5
    assert result["measures"]["dft.composition_energy"]["estimate"] is not None
    assert result["data"]["measures"]["dft.rms_force"]["estimate"] > 0
    answers = (tmp_path / "proof" / "dft.parquet").read_bytes()
    again = elign_process(*command)
    assert again.returncode == 0, again.stderr
    assert "DFT, lda" not in again.stderr
    assert (tmp_path / "proof" / "dft.parquet").read_bytes() == answers


def test_elements_that_nobody_knows_are_a_named_outcome(elign: Elign, tmp_path: Path) -> None:
    heavy = Molecules.from_lists([np.array([92, 8, 8])], [np.array([[0.0, 0, 0], [0, 0, 1.8], [0, 0, -1.8]])])
    write_molecules(tmp_path / "mine.extxyz", Molecules.cat([from_ase([ase_molecule("CH4")]), heavy]))
    _write_molecules(tmp_path / "data.extxyz", *DATA)
    done = elign("evaluate", "--policy", "mine.extxyz", "--data", "data.extxyz", "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failures"]["gfn2-xtb"] == {"unsupported_element": 1}
    assert result["failures"]["elign-mace-small"] == {"unsupported_element": 1}
    assert result["elements"]["U"] == 1
