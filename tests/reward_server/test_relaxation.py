"""Relaxation: harmonic molecules whose minimum is known, real ones by GFN2-xTB, failures alone."""

from __future__ import annotations

import math

import pytest
import torch
from ase.build import molecule as ase_molecule
from torch import Tensor

from elign.common.geometry import aligned_rmsd, pairwise_distances
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.relaxation import LONGEST_MOVE, relax
from elign.reward_server.xtb import Gfn2ForceField

LENGTH, STIFFNESS = 1.0, 30.0


class Springs:
    """Every pair of a molecule's atoms on a spring of length 1 Å; counts what it was asked."""

    name = "springs"
    elements = frozenset({1})

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        self.sizes.append(len(molecules))
        x = molecules.positions.double().requires_grad_(True)
        distances = pairwise_distances(Molecules(x, molecules.atomic_numbers, molecules.node_mask))
        stretch = torch.where(torch.isfinite(distances), distances - LENGTH, 0.0)
        energy = 0.25 * STIFFNESS * stretch.square().sum((1, 2))
        forces = -torch.autograd.grad(energy.sum(), x)[0]
        energy = energy.detach()
        failures = tuple(Failure.FORCE_LIMIT if float(e) > 1e3 else None for e in energy)
        return ForceFieldResult(energy, torch.nan_to_num(forces), energy, failures)


def _hydrogens(*positions: list[list[float]]) -> Molecules:
    return Molecules.from_lists(
        [torch.ones(len(p)).long().numpy() for p in positions], [torch.tensor(p).numpy() for p in positions]
    )


def test_springs_end_at_their_length_with_the_energy_they_held() -> None:
    pair = [[0.0, 0, 0], [1.5, 0, 0]]
    triangle = [[0.0, 0, 0], [1.3, 0, 0], [0.2, 1.1, 0]]
    springs = Springs()
    done = relax(springs, _hydrogens(pair, triangle), "qm9", max_force=1e-3)
    assert done.converged.tolist() == [True, True]
    assert float(pairwise_distances(done.molecules)[0, 0, 1]) == pytest.approx(LENGTH, abs=1e-4)
    sides = pairwise_distances(done.molecules)[1]
    assert sides[torch.isfinite(sides)].tolist() == pytest.approx([LENGTH] * 6, abs=1e-3)
    assert float(done.energy_drop[0]) == pytest.approx(0.5 * STIFFNESS * 0.5**2 / 2, rel=1e-4)
    assert float(done.rmsd[0]) == pytest.approx(0.25, abs=1e-3)
    assert int(done.steps[0]) >= math.ceil(0.25 / LONGEST_MOVE)
    assert springs.sizes[0] == 2  # all at once, and only while they are not done
    assert springs.sizes[-1] == 1


def test_what_others_are_in_the_batch_does_not_matter() -> None:
    pair, line = [[0.0, 0, 0], [1.2, 0.1, 0]], [[0.0, 0, 0], [1.2, 0, 0], [2.3, 0.3, 0.1]]
    alone, both = relax(Springs(), _hydrogens(pair), "qm9"), relax(Springs(), _hydrogens(line, pair), "qm9")
    assert int(alone.steps[0]) == int(both.steps[1])
    torch.testing.assert_close(alone.molecules.positions[0], both.molecules.positions[1, :2])


def test_a_refused_molecule_is_named_and_the_others_go_on() -> None:
    done = relax(Springs(), _hydrogens([[0.0, 0, 0], [50.0, 0, 0]], [[0.0, 0, 0], [1.2, 0, 0]]), "qm9")
    assert done.failures == (Failure.FORCE_LIMIT, None)
    assert done.converged.tolist() == [False, True]
    assert torch.isnan(done.energy_drop).tolist() == [True, False]
    assert torch.isnan(done.rmsd).tolist() == [True, False]


def test_steps_that_run_out_are_told() -> None:
    done = relax(Springs(), _hydrogens([[0.0, 0, 0], [3.0, 0, 0]]), "qm9", max_steps=2)
    assert (done.converged.tolist(), done.steps.tolist()) == ([False], [2])
    assert float(done.energy_drop[0]) > 0


def test_real_molecules_find_the_minimum_of_gfn2_and_keep_their_bonds() -> None:
    calm = from_ase([ase_molecule(name) for name in ("CH3OH", "H2O")])
    noise = torch.randn(calm.positions.shape, generator=torch.Generator().manual_seed(0))
    shaken = Molecules(
        calm.positions + 0.03 * noise * calm.node_mask[..., None], calm.atomic_numbers, calm.node_mask
    )
    field = Gfn2ForceField()
    done = relax(field, shaken, "qm9", max_force=0.02)
    assert done.converged.all()
    assert done.bonds_kept.all()
    again = field.evaluate(done.molecules)
    assert float(again.forces.norm(dim=-1).max()) < 0.02
    assert (
        float(aligned_rmsd(done.molecules, relax(field, calm, "qm9", max_force=0.02).molecules).max()) < 0.05
    )


def _turned(molecules: Molecules, reflect: bool) -> Tensor:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0].float()
    if (torch.det(turn) < 0) != reflect:
        turn = -turn
    return molecules.positions @ turn + 2.0


def test_rmsd_takes_out_rotations_but_no_reflections() -> None:
    chiral = from_ase([ase_molecule("CH3CH2OH")])
    chiral.positions[0, 0] += 0.3
    same = Molecules(_turned(chiral, False), chiral.atomic_numbers, chiral.node_mask)
    mirrored = Molecules(_turned(chiral, True), chiral.atomic_numbers, chiral.node_mask)
    assert float(aligned_rmsd(chiral, same)) == pytest.approx(0.0, abs=1e-5)
    assert float(aligned_rmsd(chiral, mirrored)) > 0.05
