"""Molecules and a tiny random force field that every test of the reward server uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.molecules import Molecules
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import MaceSpec, build_network, save_network

METHANE = (
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
    ),
)
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]))
METHANOL = (
    np.array([6, 8, 1, 1, 1, 1]),
    np.array(
        [
            [-0.05, 0.66, 0.0],
            [-0.05, -0.76, 0.0],
            [-1.09, 0.98, 0.0],
            [0.44, 1.07, 0.89],
            [0.44, 1.07, -0.89],
            [0.86, -1.06, 0.0],
        ]
    ),
)
TINY_SPEC = MaceSpec(reference_energies=(-13.0, -50.0, -72.0, -105.0, -127.0), channels=8, radial_width=8)


@pytest.fixture
def molecules() -> Molecules:
    """Methane, water and methanol, padded to 6 atoms."""
    chosen = (METHANE, WATER, METHANOL)
    return Molecules.from_lists([z for z, _ in chosen], [x for _, x in chosen])


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small MACE of random weights, as ``elign force-fields train`` would write it."""
    folder = tmp_path_factory.mktemp("force_fields") / "tiny"
    torch.manual_seed(0)
    save_network(build_network(TINY_SPEC, torch.float64), TINY_SPEC, {"origin": "random weights"}, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_field(tiny_folder: Path) -> MaceForceField:
    return MaceForceField.from_folder(tiny_folder, dtype=torch.float64)
