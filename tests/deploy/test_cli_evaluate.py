"""Promises of ``elign evaluate``: a table for people, JSON for scripts, the same sizes for both sides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.checkpoint import save_policy
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
