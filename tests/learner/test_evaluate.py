"""Evaluations of molecules whose worth is known, and what tables and JSON say of them."""

import json

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule
from rich.console import Console

from elign.common.errors import DataError
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.learner.evaluate import Evaluation, compare, evaluate_molecules
from elign.learner.evaluation_table import (
    comparison_json,
    comparison_table,
    evaluation_json,
    evaluation_table,
)


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def _scorer(rms: list[float], failures: list[Failure | None] | None = None):
    """A force field whose RMS forces are given; the same force on each atom."""
    named = tuple(failures or [None] * len(rms))

    def evaluate(molecules: Molecules) -> ForceFieldResult:
        wanted = torch.tensor([r if f is None else torch.nan for r, f in zip(rms, named, strict=True)])
        forces = torch.zeros_like(molecules.positions)
        forces[..., 0] = torch.where(molecules.node_mask, wanted[:, None], 0.0)
        energy = -wanted.double()
        return ForceFieldResult(energy, forces, energy / 2, named)

    return evaluate


def _stretched(molecules: Molecules, factor: float) -> Molecules:
    return Molecules(molecules.positions * factor, molecules.atomic_numbers, molecules.node_mask)


def test_measures_of_known_molecules() -> None:
    apart = _stretched(_named("CH4"), 4.0)
    molecules = Molecules.cat([_named("H2O", "CH4", "H2O"), apart])
    rms = [0.1, 0.2, 0.3, 100.0]
    evaluation = evaluate_molecules(molecules, "qm9", {"ff": _scorer(rms)}, frozenset({"[H]O[H]"}))
    estimates = {name: interval.estimate for name, interval in evaluation.summary.items()}
    assert estimates["atom_stability"] == pytest.approx(11 / 16)
    assert estimates["molecule_stability"] == 0.75
    assert estimates["validity"] == 1.0  # atoms far apart: RDKit adds hydrogens and is content
    assert estimates["one_piece"] == 0.75
    assert estimates["uniqueness"] == estimates["validity_x_uniqueness"] == 0.75
    assert estimates["novelty"] == pytest.approx(2 / 3)
    assert estimates["ff.rms_force"] == pytest.approx(100.6 / 4)
    assert estimates["ff.rms_force_capped"] == pytest.approx(30.6 / 4)
    assert estimates["ff.rms_force_median"] == pytest.approx(0.25)
    assert estimates["ff.formation_energy"] == pytest.approx(-100.6 / 8)
    assert evaluation.elements == {1: 12, 6: 2, 8: 2}


def test_failed_molecules_are_named_counted_and_left_out() -> None:
    failures = [None, Failure.SEVERAL_PIECES, Failure.SEVERAL_PIECES]
    evaluation = evaluate_molecules(_named("H2O", "CH4", "NH3"), "qm9", {"ff": _scorer([0.5] * 3, failures)})
    assert evaluation.summary["ff.rms_force"].estimate == pytest.approx(0.5)
    assert evaluation.summary["ff.rms_force"].count == 1
    assert evaluation.summary["ff.judged"].estimate == pytest.approx(1 / 3)
    assert evaluation.verdicts["ff"].failure_counts() == {"several_pieces": 2}
    assert "novelty" not in evaluation.summary


def test_nothing_judged_and_nothing_valid_are_nan() -> None:
    crowded = _stretched(_named("CH4"), 0.4)
    evaluation = evaluate_molecules(
        crowded, "qm9", {"ff": _scorer([1.0], [Failure.ATOMS_TOO_CLOSE])}, frozenset()
    )
    for name in ("uniqueness", "novelty", "ff.rms_force", "ff.rms_force_median"):
        assert np.isnan(evaluation.summary[name].estimate)
    assert json.loads(json.dumps(evaluation_json(evaluation), allow_nan=False))["measures"]["uniqueness"] == {
        "estimate": None,
        "low": None,
        "high": None,
        "count": 0,
        "unit": "fraction",
        "better": "higher",
    }


def _pair(shift: float) -> tuple[Evaluation, Evaluation]:
    rng = np.random.default_rng(0)
    rms = rng.uniform(1.0, 9.0, 60)
    molecules = _named(*["H2O", "CH4", "NH3"] * 20)
    before = evaluate_molecules(molecules, "qm9", {"ff": _scorer(rms.tolist())})
    after = evaluate_molecules(
        molecules, "qm9", {"ff": _scorer((rms + shift + rng.normal(0, 0.1, 60)).tolist())}
    )
    return before, after


def test_a_small_shift_shows_when_paired() -> None:
    differences = compare(*_pair(-0.1)).differences
    assert differences["ff.rms_force"].estimate == pytest.approx(-0.1, abs=0.05)
    assert differences["ff.rms_force"].excludes_zero
    assert differences["atom_stability"].estimate == 0.0
    assert not differences["atom_stability"].excludes_zero


def test_only_equal_node_counts_can_be_paired() -> None:
    one, other = (evaluate_molecules(_named(name), "qm9", {}) for name in ("H2O", "CH4"))
    with pytest.raises(DataError, match="same node counts in the same order"):
        compare(one, other)
    with pytest.raises(DataError, match="1 molecules of qm9 with 1 of geom"):
        compare(one, evaluate_molecules(_named("H2O"), "geom", {}))


def test_json_has_the_documented_layout() -> None:
    document = json.loads(json.dumps(comparison_json(compare(*_pair(-1.0))), allow_nan=False))
    assert set(document) == {"schema", "paired", "baseline", "trained", "difference"}
    assert document["schema"] == "elign.comparison/1"
    assert document["baseline"]["schema"] == "elign.evaluation/1"
    assert set(document["baseline"]) == {
        "schema",
        "dataset",
        "molecules",
        "measures",
        "failures",
        "elements",
        "repeated",
    }
    assert document["baseline"]["elements"] == {"H": 180, "C": 20, "N": 20, "O": 20}
    assert document["difference"]["ff.rms_force"]["excludes_zero"] is True
    assert document["difference"]["ff.rms_force"]["better"] == "lower"


def test_tables_read_well_without_colours() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    comparison = compare(*_pair(-1.0))
    failed = evaluate_molecules(_named("H2O"), "qm9", {"ff": _scorer([1.0], [Failure.NOT_CONVERGED])})
    console.print(evaluation_table(failed, "one"))
    console.print(comparison_table(comparison, "two"))
    text = console.export_text()
    assert "ff: not converged" in text
    assert "ff: RMS force, mean ↓" in text
    assert "100.0 %" in text
    assert "*" in text
