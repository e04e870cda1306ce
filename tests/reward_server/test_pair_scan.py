"""The scan of pairs finds the holes that a curve has, and none in an honest one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import MaceSpec, build_network
from elign.reward_server.pair_scan import NO_CHECKS, PairScan, scan_pairs

DISTANCES = np.linspace(0.3, 5.0, 189)
CARBON = (6, 6)  # a bond of 1.52 Å


def curve(energy: np.ndarray) -> PairScan:
    return PairScan(CARBON, DISTANCES, energy, -np.gradient(energy, DISTANCES))


def morse(distances: np.ndarray) -> np.ndarray:
    return 5.0 * (1 - np.exp(-2.0 * (distances - 1.5))) ** 2


def test_a_bond_is_no_hole() -> None:
    assert curve(morse(DISTANCES)).holes() == []
    assert curve(1.0 / DISTANCES).holes() == []


def test_attraction_inside_a_bond_is_found() -> None:
    collapsed = morse(DISTANCES) - 300.0 * np.exp(-(((DISTANCES - 0.3) / 0.2) ** 2))
    assert any("attracts at 0.5" in hole for hole in curve(collapsed).holes())


@pytest.mark.parametrize("where", [0.8, 3.5])
def test_a_well_where_there_is_no_bond_is_found_with_its_depth(where: float) -> None:
    spurious = 1.0 / DISTANCES**2 - 2.0 * np.exp(-(((DISTANCES - where) / 0.2) ** 2))
    found = [hole for hole in curve(spurious).holes() if "a well of" in hole]
    assert len(found) == 1
    assert float(found[0].split(" at ")[1].split()[0]) == pytest.approx(where, abs=0.15)
    shallow = 1.0 / DISTANCES**2 - 0.05 * np.exp(-(((DISTANCES - where) / 0.2) ** 2))
    assert curve(shallow).holes() == []


def test_every_pair_of_elements_is_pulled_apart_along_its_axis() -> None:
    class Springs:
        name, elements = "springs", frozenset({1, 6, 8})

        def evaluate(self, molecules: Molecules) -> ForceFieldResult:
            apart = molecules.positions[:, 1] - molecules.positions[:, 0]
            energy = 0.5 * (apart.norm(dim=-1).double() - 1.0) ** 2
            push = -(apart.norm(dim=-1, keepdim=True) - 1.0) * apart / apart.norm(dim=-1, keepdim=True)
            return ForceFieldResult(energy, torch.stack([-push, push], 1), energy, (None,) * len(molecules))

    scans = scan_pairs(Springs(), DISTANCES, (1, 6, 8))
    assert [scan.name for scan in scans] == ["H-H", "H-C", "H-O", "C-C", "C-O", "O-O"]
    for scan in scans:
        np.testing.assert_allclose(scan.energy, 0.5 * (DISTANCES - 1.0) ** 2, atol=1e-5)
        np.testing.assert_allclose(scan.force, 1.0 - DISTANCES, atol=1e-5)


def test_a_network_without_training_answers_for_every_pair() -> None:
    spec = MaceSpec(reference_energies=(-13.0, -50.0, -72.0, -105.0, -127.0), channels=4, radial_width=8)
    references = dict(zip(spec.elements, spec.reference_energies, strict=True))
    field = MaceForceField("fresh", build_network(spec, torch.float32), references, checks=NO_CHECKS)
    scans = scan_pairs(field, np.array([0.3, 1.0, 4.9, 6.0]), spec.elements)
    assert len(scans) == 15
    assert all(np.isfinite(scan.energy).all() and scan.force[-1] == 0 for scan in scans)
    assert all(scan.force[0] > 10 for scan in scans)  # ZBL
