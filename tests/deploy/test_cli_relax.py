"""Promises of ``elign relax``: relaxed molecules with what it took, failures named."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.build import molecule as ase_molecule

from elign.common.molecule_io import from_ase, read_molecules_with_properties, write_molecules
from elign.common.molecules import Molecules

Elign = Callable[..., "subprocess.CompletedProcess[str]"]


def test_molecules_are_relaxed_and_failures_named(elign: Elign, tmp_path: Path) -> None:
    apart = Molecules.from_lists([np.array([8, 1, 1])], [np.array([[0.0, 0, 0], [0, 0, 0.97], [9, 0, 0]])])
    write_molecules(tmp_path / "in.extxyz", Molecules.cat([from_ase([ase_molecule("CH3OH")]), apart]))
    done = elign("relax", "in.extxyz", "--force-field", "gfn2-xtb", "--out", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert "2 molecules in out.parquet, 1 relaxed, 1 failed" in done.stdout
    _, columns = read_molecules_with_properties(tmp_path / "out.parquet")
    assert columns["failure"].tolist() == [None, "several_pieces"]
    assert columns["energy_drop"][0] > 0
    assert bool(columns["bonds_kept"][0])


def test_a_suffix_without_room_for_figures_is_refused(elign: Elign) -> None:
    done = elign("relax", "in.extxyz", "--out", "out.xyz")
    assert done.returncode == 2
    assert "must end in .extxyz, .sdf or .parquet" in done.stderr
