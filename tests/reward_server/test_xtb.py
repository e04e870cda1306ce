"""GFN2-xTB as a force field: units, forces as gradients, failures, several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import Failure
from elign.reward_server.xtb import Calculation, Gfn2ForceField, free_atom_energy, single_point
from tests.reward_server.killed_parent import kill_and_await_child

_HARTREE = 27.211386


def moved(molecules: Molecules, molecule: int, atom: int, axis: int, by: float) -> Molecules:
    positions = molecules.positions.double().clone()
    positions[molecule, atom, axis] += by
    return Molecules(positions, molecules.atomic_numbers, molecules.node_mask)


def test_energies_are_in_ev() -> None:
    assert free_atom_energy(1) == pytest.approx(-0.393482 * _HARTREE, abs=1e-3)


def test_forces_are_minus_the_gradient(molecules: Molecules) -> None:
    field = Gfn2ForceField()
    forces = field.evaluate(moved(molecules, 0, 0, 0, 0.0)).forces
    for molecule, atom, axis in [(1, 1, 1), (2, 0, 0)]:
        up, down = (
            float(field.evaluate(moved(molecules, molecule, atom, axis, by)).energy[molecule])
            for by in (1e-3, -1e-3)
        )
        assert float(forces[molecule, atom, axis]) == pytest.approx((down - up) / 2e-3, abs=2e-3)


def test_formation_energy_is_relative_to_free_atoms_or_to_given_references(molecules: Molecules) -> None:
    result = Gfn2ForceField().evaluate(molecules)
    water = (float(result.energy[1]) - free_atom_energy(8) - 2 * free_atom_energy(1)) / 3
    assert float(result.formation_energy[1]) == pytest.approx(water)
    assert -8 < water < -2
    own = Gfn2ForceField(reference_energies={1: -10.0, 8: -100.0}).evaluate(molecules)
    assert own.failures == (Failure.UNSUPPORTED_ELEMENT, None, Failure.UNSUPPORTED_ELEMENT)
    assert float(own.formation_energy[1]) == pytest.approx((float(result.energy[1]) + 120.0) / 3)


def test_bad_molecules_fail_by_name_and_alone(molecules: Molecules) -> None:
    bad = Molecules.from_lists(
        [np.array([6]), np.array([6, 1])], [np.zeros((1, 3)), np.array([[0.0, 0, 0], [0, 0, 9]])]
    )
    result = Gfn2ForceField().evaluate(Molecules.cat([bad, molecules]))
    assert result.failures == (Failure.TOO_FEW_ATOMS, Failure.SEVERAL_PIECES, None, None, None)
    assert torch.isnan(result.energy[:2]).all()
    assert torch.isfinite(result.energy[2:]).all()


def test_radicals_can_be_judged() -> None:
    methyl = (
        np.array([6, 1, 1, 1]),
        np.array([[0.0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]]),
    )
    answer = single_point(*methyl)
    assert not isinstance(answer, Failure)
    assert np.abs(answer[1]).max() < 1.0


def test_a_calculation_goes_on_from_its_last_geometry(molecules: Molecules) -> None:
    numbers, positions = list(molecules.arrays())[2]
    calculation = Calculation(numbers, positions)
    calculation(positions)
    shifted = positions + 0.05 * np.random.default_rng(0).standard_normal(positions.shape)
    warm, cold = calculation(shifted), single_point(numbers, shifted)
    assert not isinstance(warm, Failure)
    assert not isinstance(cold, Failure)
    assert warm[0] == pytest.approx(cold[0], abs=1e-4)
    np.testing.assert_allclose(warm[1], cold[1], atol=2e-3)


def test_several_processes_give_the_same_answers_in_order(molecules: Molecules) -> None:
    seen: list[tuple[int, int]] = []
    alone = Gfn2ForceField().evaluate(molecules)
    shared = Gfn2ForceField(processes=2).evaluate(molecules, lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(shared.energy, alone.energy)
    torch.testing.assert_close(shared.forces, alone.forces)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from elign.reward_server.xtb import map_in_processes\n"
        "def own_pid(_): return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    answers = map_in_processes(own_pid, range(64), 2)\n"
        "    print(next(answers), flush=True)\n"
        "    time.sleep(3600)\n"
    )
    kill_and_await_child(script, tmp_path)
