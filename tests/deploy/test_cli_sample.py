"""Promises of ``elign sample`` and ``elign policies``: files in every format, one seed one result."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from elign.common.checkpoint import save_policy
from elign.common.molecule_io import read_molecules, read_molecules_with_properties
from elign.common.policy import DiffusionPolicy, PolicySpec

Elign = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """The name of a small policy with random weights in the user's own folder."""
    spec = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1, 6: 1})
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "tiny", {"summary": "for tests"})
    return "tiny"


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".sdf", ".parquet"])
def test_the_suffix_decides_the_format(elign: Elign, policy: str, tmp_path: Path, suffix: str) -> None:
    done = elign("sample", "--policy", policy, "-n", "3", "--steps", "4", "--out", f"molecules{suffix}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"3 molecules (4 steps, seed 0) in molecules{suffix}\n"
    assert len(read_molecules(tmp_path / f"molecules{suffix}")) == 3


def test_one_seed_gives_one_result(elign: Elign, policy: str, tmp_path: Path) -> None:
    for name, seed in [("a", "1"), ("b", "1"), ("c", "2")]:
        elign("sample", "--policy", policy, "-n", "4", "--steps", "3", "--seed", seed, "--out", f"{name}.xyz")
    first, again, other = ((tmp_path / f"{name}.xyz").read_text() for name in "abc")
    assert first == again != other


def test_num_atoms_fixes_the_size(elign: Elign, policy: str, tmp_path: Path) -> None:
    elign("sample", "--policy", policy, "-n", "2", "--steps", "2", "--num-atoms", "9", "--out", "a.parquet")
    assert read_molecules(tmp_path / "a.parquet").num_atoms.tolist() == [9, 9]


def test_energies_are_written_when_asked_for(elign: Elign, policy: str, tmp_path: Path) -> None:
    done = elign(
        "sample",
        "--policy",
        policy,
        "-n",
        "2",
        "--steps",
        "2",
        "--force-field",
        "gfn2-xtb",
        "--out",
        "a.parquet",
    )
    assert done.returncode == 0, done.stderr
    _, properties = read_molecules_with_properties(tmp_path / "a.parquet")
    assert {"energy", "formation_energy", "rms_force"} <= set(properties)


def test_policies_are_listed_for_people_and_for_scripts(elign: Elign, policy: str) -> None:
    assert policy in elign("policies", "list").stdout
    rows = {row["name"]: row for row in json.loads(elign("policies", "list", "--json").stdout)}
    assert rows["tiny"]["metadata"] == {"summary": "for tests"}
    assert rows["tiny"]["num_parameters"] > 0


def test_force_fields_are_listed_for_people_and_for_scripts(elign: Elign) -> None:
    assert "gfn2-xtb" in elign("force-fields", "list").stdout
    rows = json.loads(elign("force-fields", "list", "--json").stdout)
    assert {"name", "kind", "licence", "description", "path"} == set(rows[0])
    assert "mace-off23-small" in {row["name"] for row in rows}


def test_a_formula_is_the_composition_of_every_molecule(elign: Elign, policy: str, tmp_path: Path) -> None:
    command = ["sample", "--policy", policy, "-n", "3", "--steps", "3", "--out", "a.extxyz"]
    done = elign(*command, "--formula", "C2H4O")
    assert done.returncode == 0, done.stderr
    molecules, _ = read_molecules_with_properties(tmp_path / "a.extxyz")
    assert molecules.atomic_numbers.sort(1).values.tolist() == [[1, 1, 1, 1, 6, 6, 8]] * 3
    for formula, message in [
        ("C2S", "the policy has no S, only H, C, N, O, F"),
        ("2x", "no chemical formula"),
    ]:
        done = elign(*command, "--formula", formula)
        assert done.returncode == 2
        assert message in done.stderr
    done = elign(*command, "--formula", "CH4", "--num-atoms", "5")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


def test_a_conditional_policy_gets_its_property_or_says_what_it_needs(elign: Elign, tmp_path: Path) -> None:
    spec = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1}, conditioning=("alpha",))
    torch.manual_seed(0)
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "asked", {})
    command = ["sample", "--policy", "asked", "-n", "2", "--steps", "3", "--out"]
    for name, value in [("low.xyz", "-1"), ("high.xyz", "1.5")]:
        done = elign(*command, name, "--condition", f"alpha={value}")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "low.xyz").read_text() != (tmp_path / "high.xyz").read_text()
    for options, message in [
        ([], "needs --condition alpha=VALUE"),
        (["--condition", "gap=1"], "conditioned on alpha"),
        (["--condition", "alpha=much"], "wanted alpha=NUMBER"),
    ]:
        done = elign(*command, "a.xyz", *options)
        assert (done.returncode, message in done.stderr) == (2, True)
