"""PoseBusters, where installed: real molecules pass, broken and invalid ones do not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from ase.build import molecule as ase_molecule

from elign.common.chemistry import canonical_smiles
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.learner.evaluate import evaluate_molecules
from elign.learner.posebusters_checks import is_installed, passes_posebusters

pytestmark = pytest.mark.skipif(not is_installed(), reason="posebusters is not installed")


def test_real_molecules_pass_and_broken_or_invalid_ones_do_not() -> None:
    good = from_ase([ase_molecule(name) for name in ("CH3CH2OH", "C2H4")])
    broken = Molecules(good.positions[:1] * 3.0, good.atomic_numbers[:1], good.node_mask[:1])
    crowded = Molecules(good.positions[:1] * 0.5, good.atomic_numbers[:1], good.node_mask[:1])
    molecules = Molecules.cat([good, broken, crowded])
    smiles = canonical_smiles(molecules, "qm9")
    assert smiles[3] is None
    assert passes_posebusters(molecules, "qm9", smiles).tolist() == [True, True, False, False]
    assert evaluate_molecules(molecules, "qm9", {}).summary["posebusters"].estimate == 0.5
    assert not passes_posebusters(molecules[3:], "qm9", [None]).any()


def test_an_earlier_call_whose_standard_error_is_closed_since_changes_nothing(tmp_path: Path) -> None:
    water = from_ase([ase_molecule("H2O")])
    with (tmp_path / "log").open("w") as passing, contextlib.redirect_stderr(passing):
        assert passes_posebusters(water, "qm9", ["O"]).all()
    assert passes_posebusters(water, "qm9", ["O"]).all()
