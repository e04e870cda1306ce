"""MACE as a force field: symmetry, forces as gradients, batches equal to single molecules and to ASE's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.reward_server.checks import Checks
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    build_network,
    importing_mace,
    load_network,
    save_network,
)

_DELTA = 1e-4


def transformed(molecules: Molecules, rotation: torch.Tensor, shift: torch.Tensor) -> Molecules:
    positions = (molecules.positions.double() @ rotation.T + shift) * molecules.node_mask.unsqueeze(-1)
    return Molecules(positions, molecules.atomic_numbers, molecules.node_mask)


@pytest.fixture
def shaken(molecules: Molecules) -> Molecules:
    """Float64 molecules away from any symmetric arrangement, where forces are not small."""
    noise = 0.1 * torch.randn(molecules.positions.shape, generator=torch.Generator().manual_seed(0))
    positions = (molecules.positions + noise).double() * molecules.node_mask.unsqueeze(-1)
    return Molecules(positions, molecules.atomic_numbers, molecules.node_mask)


@pytest.mark.parametrize("reflect", [False, True])
def test_energy_is_invariant_and_forces_turn_along(
    tiny_field: MaceForceField, shaken: Molecules, reflect: bool
) -> None:
    random = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rotation = torch.linalg.qr(random)[0]
    rotation = rotation * (torch.linalg.det(rotation) * (-1.0 if reflect else 1.0))
    moved = transformed(shaken, rotation, torch.tensor([3.0, -40.0, 7.0], dtype=torch.float64))
    before, after = tiny_field.evaluate(shaken), tiny_field.evaluate(moved)
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-8)
    torch.testing.assert_close(after.forces, before.forces @ rotation.T, rtol=0, atol=1e-8)


def test_atoms_may_come_in_any_order(tiny_field: MaceForceField, shaken: Molecules) -> None:
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    mixed = Molecules(shaken.positions[:, order], shaken.atomic_numbers[:, order], shaken.node_mask[:, order])
    before, after = tiny_field.evaluate(shaken), tiny_field.evaluate(mixed)
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-8)
    torch.testing.assert_close(after.forces, before.forces[:, order], rtol=0, atol=1e-8)


def test_forces_are_minus_the_gradient_of_the_energy(tiny_field: MaceForceField, shaken: Molecules) -> None:
    forces = tiny_field.evaluate(shaken).forces
    for molecule, atom, axis in [(0, 0, 0), (0, 3, 2), (1, 1, 1), (2, 5, 0)]:
        energies = []
        for sign in (1, -1):
            positions = shaken.positions.clone()
            positions[molecule, atom, axis] += sign * _DELTA
            moved = Molecules(positions, shaken.atomic_numbers, shaken.node_mask)
            energies.append(float(tiny_field.evaluate(moved).energy[molecule]))
        slope = (energies[0] - energies[1]) / (2 * _DELTA)
        assert float(forces[molecule, atom, axis]) == pytest.approx(-slope, abs=1e-6)


def test_forces_of_a_molecule_add_up_to_zero(tiny_field: MaceForceField, shaken: Molecules) -> None:
    assert tiny_field.evaluate(shaken).forces.sum(1).abs().max() < 1e-10


@pytest.mark.parametrize("max_edges", [1, 25, 100_000])
def test_a_batch_equals_its_molecules_one_by_one(
    tiny_folder: Path, shaken: Molecules, max_edges: int
) -> None:
    field = MaceForceField.from_folder(tiny_folder, dtype=torch.float64, max_edges=max_edges)
    together = field.evaluate(shaken)
    for i, (numbers, positions) in enumerate(shaken.arrays()):
        alone = field.evaluate(
            Molecules(
                torch.from_numpy(positions)[None],
                torch.from_numpy(numbers)[None],
                torch.ones(1, len(numbers), dtype=torch.bool),
            )
        )
        torch.testing.assert_close(together.energy[i], alone.energy[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(together.forces[i, : len(numbers)], alone.forces[0], rtol=0, atol=1e-9)


def test_answers_equal_those_of_the_ase_calculator(tiny_folder: Path, shaken: Molecules) -> None:
    with importing_mace():
        from mace.calculators import MACECalculator

    network, _ = load_network(tiny_folder, torch.float64)
    calculator = MACECalculator(models=[network], device="cpu", default_dtype="float64")
    result = MaceForceField.from_folder(tiny_folder, dtype=torch.float64).evaluate(shaken)
    for i, (numbers, positions) in enumerate(shaken.arrays()):
        atoms = Atoms(numbers, positions, calculator=calculator)
        assert float(result.energy[i]) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(result.forces[i, : len(numbers)].numpy(), atoms.get_forces(), atol=1e-8)


def test_formation_energy_is_what_lies_above_the_references(
    tiny_field: MaceForceField, molecules: Molecules
) -> None:
    result = tiny_field.evaluate(molecules)
    references = [-50.0 - 4 * 13.0, -105.0 - 2 * 13.0, -50.0 - 105.0 - 4 * 13.0]
    expected = [
        (energy - reference) / n
        for energy, reference, n in zip(
            result.energy.tolist(), references, molecules.num_atoms.tolist(), strict=True
        )
    ]
    assert result.formation_energy.tolist() == pytest.approx(expected, abs=1e-9)


def test_single_precision_agrees_with_double_far_from_the_origin(
    tiny_folder: Path, tiny_field: MaceForceField, shaken: Molecules
) -> None:
    far = transformed(
        shaken, torch.eye(3, dtype=torch.float64), torch.full((3,), 5000.0, dtype=torch.float64)
    )
    single = MaceForceField.from_folder(tiny_folder, dtype=torch.float32).evaluate(far)
    double = tiny_field.evaluate(shaken)
    torch.testing.assert_close(single.energy, double.energy, rtol=0, atol=1e-4)
    torch.testing.assert_close(single.forces.double(), double.forces, rtol=0, atol=1e-4)


def test_close_atoms_repel(tiny_folder: Path) -> None:
    field = MaceForceField.from_folder(tiny_folder, checks=Checks(min_distance=0.05, force_limit=1e9))
    distances = (0.15, 0.25, 0.4)
    pairs = Molecules.from_lists(
        [np.array([6, 6])] * 3, [np.array([[0.0, 0, 0], [0, 0, distance]]) for distance in distances]
    )
    push = field.evaluate(pairs).forces[:, 1, 2]
    assert (push > 10).all()
    assert push[0] > push[1] > push[2]


def test_loading_leaves_torch_as_it_was(tiny_folder: Path) -> None:
    MaceForceField.from_folder(tiny_folder, dtype=torch.float64)
    assert torch.get_default_dtype() == torch.float32
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_saved_network_is_the_loaded_one(tiny_folder: Path, tmp_path: Path) -> None:
    network, description = load_network(tiny_folder, torch.float32)
    save_network(network, description.spec, {"note": "second"}, tmp_path)
    again, second = load_network(tmp_path, torch.float32)
    assert second.spec == description.spec
    assert second.metadata == {"note": "second"}
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_truncated_foreign_or_missing_file_is_one_clear_error(tiny_folder: Path, tmp_path: Path) -> None:
    network, description = load_network(tiny_folder, torch.float32)
    save_network(network, description.spec, {}, tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ForceFieldError, match=WEIGHTS_FILE):
        load_network(tmp_path, torch.float32)
    weights.unlink()
    with pytest.raises(ForceFieldError, match=WEIGHTS_FILE):
        load_network(tmp_path, torch.float32)
    other = description.spec.model_copy(update={"channels": 4})
    save_network(build_network(other, torch.float32), description.spec, {}, tmp_path)
    with pytest.raises(ForceFieldError, match="do not fit"):
        load_network(tmp_path, torch.float32)
    (tmp_path / DESCRIPTION_FILE).write_text('{"format": "something else"}')
    with pytest.raises(ForceFieldError, match=DESCRIPTION_FILE):
        load_network(tmp_path, torch.float32)
