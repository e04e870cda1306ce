"""Each named failure is caught, by itself, without harm to the rest of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import Failure
from elign.reward_server.checks import Checks, check_structures
from elign.reward_server.mace_force_field import MaceForceField

ELEMENTS = (1, 6, 7, 8, 9)
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]))


def water(**changes: float) -> tuple[np.ndarray, np.ndarray]:
    """Water with its first hydrogen's x set."""
    positions = WATER[1].copy()
    positions[1, 0] = changes["x"]
    return WATER[0], positions


BAD = {
    Failure.NON_FINITE: water(x=np.nan),
    Failure.TOO_FEW_ATOMS: (np.array([8]), np.zeros((1, 3))),
    Failure.UNSUPPORTED_ELEMENT: (np.array([14, 1, 1]), WATER[1]),
    Failure.ATOMS_TOO_CLOSE: (np.array([8, 8]), np.array([[0.0, 0, 0], [0, 0, 0.1]])),
    Failure.SEVERAL_PIECES: water(x=7.0),
}


def batch(*molecules: tuple[np.ndarray, np.ndarray]) -> Molecules:
    return Molecules.from_lists([z for z, _ in molecules], [x for _, x in molecules])


@pytest.mark.parametrize("failure", BAD, ids=str)
def test_each_failure_is_named_and_its_neighbours_are_not_touched(
    failure: Failure, tiny_field: MaceForceField
) -> None:
    alone = tiny_field.evaluate(batch(WATER))
    result = tiny_field.evaluate(batch(WATER, BAD[failure], WATER))
    assert result.failures == (None, failure, None)
    assert torch.isnan(result.energy[1])
    assert torch.isnan(result.formation_energy[1])
    for good in (0, 2):
        torch.testing.assert_close(result.energy[good], alone.energy[0])
        torch.testing.assert_close(result.forces[good], alone.forces[0])


def test_infinite_coordinates_and_atoms_at_one_point_are_named_too() -> None:
    same_point = (np.array([6, 6]), np.zeros((2, 3)))
    failures = check_structures(batch(water(x=np.inf), same_point), ELEMENTS, Checks())
    assert failures == (Failure.NON_FINITE, Failure.ATOMS_TOO_CLOSE)


def test_the_first_reason_wins() -> None:
    numbers, positions = water(x=np.nan)
    numbers = np.array([14, *numbers[1:]])
    assert check_structures(batch((numbers, positions)), ELEMENTS, Checks()) == (Failure.NON_FINITE,)


def test_a_force_beyond_the_limit_is_a_failure(tiny_folder: object) -> None:
    from pathlib import Path

    squeezed = (np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, 0.42]]))
    field = MaceForceField.from_folder(Path(str(tiny_folder)), checks=Checks(force_limit=5.0))
    result = field.evaluate(batch(squeezed, WATER))
    assert result.failures == (Failure.FORCE_LIMIT, None)
    assert torch.isnan(result.forces[0, :2]).all()
    assert (result.forces[0, 2] == 0).all()


def test_padding_is_zero_in_the_forces_of_a_failed_molecule(tiny_field: MaceForceField) -> None:
    result = tiny_field.evaluate(batch(BAD[Failure.TOO_FEW_ATOMS], WATER))
    assert torch.isnan(result.forces[0, 0]).all()
    assert (result.forces[0, 1:] == 0).all()


def test_an_empty_batch_gives_an_empty_answer(tiny_field: MaceForceField) -> None:
    result = tiny_field.evaluate(Molecules.from_lists([], []))
    assert result.failures == ()
    assert result.energy.shape == (0,)
