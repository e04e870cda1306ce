"""Energies above composition: only the reference changes, and with it nothing is gained by another mix."""

from __future__ import annotations

from pathlib import Path

import torch

from elign.common.config import RewardSettings
from elign.common.molecule_io import write_molecules
from elign.common.molecules import Molecules
from elign.reward_server.composition_reference import AboveComposition
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.replica_actor import _load


def test_other_references_change_nothing_but_where_energies_count_from(
    tiny_folder: Path, molecules: Molecules
) -> None:
    original = MaceForceField.from_folder(tiny_folder, dtype=torch.float64)
    shifted = MaceForceField.from_folder(tiny_folder, dtype=torch.float64)
    shifted._references = original._references + torch.arange(120)  # as if from other atoms
    plain, other = original.evaluate(molecules), shifted.evaluate(molecules)
    assert not torch.allclose(plain.formation_energy, other.formation_energy + 1, atol=0.1)
    above = [AboveComposition(field, molecules).evaluate(molecules) for field in (original, shifted)]
    torch.testing.assert_close(above[0].formation_energy, above[1].formation_energy, rtol=0, atol=1e-6)
    assert torch.equal(above[0].energy, plain.energy)
    assert torch.equal(above[0].forces, plain.forces)


def test_what_the_data_determine_counts_as_nothing(tiny_field: MaceForceField, molecules: Molecules) -> None:
    result = AboveComposition(tiny_field, molecules).evaluate(molecules)
    torch.testing.assert_close(
        result.formation_energy, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_failures_stay_failures(tiny_field: MaceForceField, molecules: Molecules) -> None:
    far = Molecules(molecules.positions * 20, molecules.atomic_numbers, molecules.node_mask)
    result = AboveComposition(tiny_field, molecules).evaluate(far)
    assert all(failure is not None for failure in result.failures)
    assert result.formation_energy.isnan().all()


def test_a_replica_counts_from_the_data_it_is_given(
    tiny_folder: Path, molecules: Molecules, tmp_path: Path
) -> None:
    write_molecules(tmp_path / "data.extxyz", molecules)
    settings = RewardSettings(force_field=str(tiny_folder), composition_data=str(tmp_path / "data.extxyz"))
    energy = _load(settings).evaluate(molecules).formation_energy
    torch.testing.assert_close(energy, torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
