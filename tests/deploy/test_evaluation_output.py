"""What an evaluation prints: tables and warnings, SMILES as they are."""

from __future__ import annotations

import pytest
from ase.build import molecule as ase_molecule

from elign.common.molecule_io import from_ase
from elign.evaluation_output import print_outcome
from elign.learner.evaluate import evaluate_molecules
from elign.learner.evaluation_outcome import Outcome


def test_warnings_show_smiles_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    molecules = from_ase([ase_molecule("CH4")])
    evaluation = evaluate_molecules(molecules, "qm9", {})
    warnings = {"repeated_molecule": "12% of the valid molecules are c1cc[nH]c1"}
    print_outcome(
        Outcome("qm9", evaluation, evaluation, {"trained": molecules}, None, warnings, None), "title"
    )
    printed = capsys.readouterr().out
    assert "warning: repeated_molecule: 12% of the valid molecules are c1cc[nH]c1" in printed
    assert "atom stability" in printed
    assert "data" in printed
