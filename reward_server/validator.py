"""What every backend promises, in one check: run it on a new one before training with it.

    validate_force_field(load_force_field("ase:tblite.ase:TBLite", options={"verbosity": 0}), molecules)

Physics that has an answer (forces are the energy's gradient, turning a molecule turns its forces, the order
of atoms means nothing) and the contract of ``ForceField``: failures are named and concern one molecule alone,
and a molecule's answer does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceField, ForceFieldResult

_STEP = 5e-3  # Å, of the numerical gradient
_SEED = 0


@dataclass(frozen=True)
class Tolerances:
    """energy: eV. force: eV/Å. gradient: eV/Å, between a force and a difference of energies."""

    energy: float = 1e-3
    force: float = 1e-3
    gradient: float = 2e-2


def validate_force_field(
    force_field: ForceField, molecules: Molecules, tolerances: Tolerances | None = None
) -> None:
    """Raises ForceFieldError that lists the broken promises.

    molecules: two or more that the force field should be able to judge, in one piece.
    """
    expected = force_field.evaluate(molecules)
    if any(failure is not None for failure in expected.failures):
        raise ForceFieldError(
            f"{force_field.name} cannot judge the molecules it is tried on: {expected.failures}"
        )
    case = _Case(force_field, molecules, expected, tolerances or Tolerances())
    broken = [
        promise.__doc__.splitlines()[0].rstrip(".")
        for promise in PROMISES
        if promise.__doc__ and not promise(case)
    ]
    if broken:
        raise ForceFieldError(f"{force_field.name} does not keep: " + "; ".join(broken))


@dataclass(frozen=True)
class _Case:
    field: ForceField
    molecules: Molecules
    expected: ForceFieldResult
    tolerances: Tolerances

    def agrees(self, result: ForceFieldResult, energy: Tensor, forces: Tensor) -> bool:
        """Whether a result has these energies [B] and forces [B, N, 3]."""
        return _close(result.energy, energy, self.tolerances.energy) and _close(
            result.forces, forces, self.tolerances.force
        )


def _answer_has_its_form(case: _Case) -> bool:
    """energies are float64, finite, one a molecule; forces are shaped as positions and 0 where padded."""
    result, mask = case.expected, case.molecules.node_mask.cpu()
    return (
        result.energy.dtype == result.formation_energy.dtype == torch.float64
        and result.energy.shape == result.formation_energy.shape == (len(case.molecules),)
        and result.forces.shape == case.molecules.positions.shape
        and bool(torch.isfinite(result.energy).all() and torch.isfinite(result.forces).all())
        and bool((result.forces[~mask] == 0).all())
    )


def _nothing_gives_nothing(case: _Case) -> bool:
    """an empty batch has an empty answer."""
    result = case.field.evaluate(case.molecules[:0])
    return result.energy.shape == (0,) and result.failures == ()


def _input_is_left_alone(case: _Case) -> bool:
    """molecules are not changed by evaluating them."""
    before = case.molecules.positions.clone()
    case.field.evaluate(case.molecules)
    return torch.equal(before, case.molecules.positions)


def _company_does_not_matter(case: _Case) -> bool:
    """a molecule's answer is the same alone, in any batch, and when asked again."""
    alone = [case.field.evaluate(case.molecules[[i]]) for i in range(len(case.molecules))]
    energy, forces = torch.cat([one.energy for one in alone]), torch.cat([one.forces for one in alone])
    order = torch.arange(len(case.molecules)).flip(0).repeat(2)
    again = case.field.evaluate(case.molecules[order])
    return case.agrees(case.expected, energy, forces) and case.agrees(again, energy[order], forces[order])


def _forces_are_the_gradient(case: _Case) -> bool:
    """forces are minus the gradient of the energy."""
    mask = case.molecules.node_mask.unsqueeze(-1)
    direction = _noise(case.molecules.positions) * mask
    direction = direction / direction.flatten(1).norm(dim=1)[:, None, None]
    positions = case.molecules.positions.double()
    up, down = (
        case.field.evaluate(_at(case.molecules, positions + step * direction)).energy
        for step in (_STEP, -_STEP)
    )
    slope = (case.expected.forces.double() * direction.cpu()).sum((1, 2))
    return _close(slope, (down - up) / (2 * _STEP), case.tolerances.gradient)


def _turning_turns_forces(case: _Case) -> bool:
    """turning, mirroring and shifting a molecule leaves its energy and does the same to its forces."""
    turn, _ = torch.linalg.qr(_noise(torch.zeros(3, 3)))
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    for rotation in (turn, -turn):
        moved = _at(case.molecules, case.molecules.positions.double() @ rotation.T + shift)
        forces = case.expected.forces.double() @ rotation.T
        if not case.agrees(case.field.evaluate(moved), case.expected.energy, forces):
            return False
    return True


def _order_means_nothing(case: _Case) -> bool:
    """atoms may come in any order."""
    m = case.molecules
    order = torch.arange(m.node_mask.shape[1]).flip(0)
    mixed = Molecules(m.positions[:, order], m.atomic_numbers[:, order], m.node_mask[:, order])
    return case.agrees(case.field.evaluate(mixed), case.expected.energy, case.expected.forces[:, order])


def _references_are_of_elements(case: _Case) -> bool:
    """the formation energy is what lies above a sum over the elements, the same in every geometry."""
    positions = case.molecules.positions.double()
    moved = _at(case.molecules, positions + 0.02 * _noise(positions))
    atoms = case.molecules.num_atoms.cpu()
    sums = [r.energy - r.formation_energy * atoms for r in (case.expected, case.field.evaluate(moved))]
    return _close(sums[0], sums[1], 1e-6)


def _bad_molecules_are_named(case: _Case) -> bool:
    """what cannot be judged is NaN with a name, and its neighbours are untouched."""
    for failure, bad in _bad_molecules(case):
        result = case.field.evaluate(Molecules.cat([case.molecules, bad]))
        good = ForceFieldResult(
            result.energy[:-1], result.forces[:-1], result.formation_energy[:-1], result.failures[:-1]
        )
        named = result.failures[-1] == failure and bool(torch.isnan(result.energy[-1]))
        if not named or not case.agrees(good, case.expected.energy, case.expected.forces):
            return False
    return True


PROMISES: tuple[Callable[[_Case], bool], ...] = (
    _answer_has_its_form,
    _nothing_gives_nothing,
    _input_is_left_alone,
    _company_does_not_matter,
    _forces_are_the_gradient,
    _turning_turns_forces,
    _order_means_nothing,
    _references_are_of_elements,
    _bad_molecules_are_named,
)


def _bad_molecules(case: _Case) -> Iterator[tuple[Failure, Molecules]]:
    """Each made of the first molecule, of which two atoms or more are real."""
    first = case.molecules[[0]]
    real = first.node_mask[0].nonzero().flatten()

    def with_atom(place: Tensor) -> Molecules:
        positions = first.positions.clone()
        positions[0, real[0]] = place.to(positions)
        return Molecules(positions, first.atomic_numbers, first.node_mask)

    yield Failure.NON_FINITE, with_atom(torch.tensor([torch.nan, 0.0, 0.0]))
    yield Failure.ATOMS_TOO_CLOSE, with_atom(first.positions[0, real[1]] + 1e-3)
    yield Failure.SEVERAL_PIECES, with_atom(torch.tensor([50.0, 50.0, 50.0]))
    lone = torch.zeros_like(first.node_mask)
    lone[0, real[0]] = True
    yield (
        Failure.TOO_FEW_ATOMS,
        Molecules(first.positions * lone.unsqueeze(-1), first.atomic_numbers * lone, lone),
    )
    unknown = set(range(1, 119)) - case.field.elements
    if unknown:
        numbers = first.atomic_numbers.clone()
        numbers[0, real[0]] = max(unknown)
        yield Failure.UNSUPPORTED_ELEMENT, Molecules(first.positions, numbers, first.node_mask)


def _at(molecules: Molecules, positions: Tensor) -> Molecules:
    """The molecules elsewhere, in float64, so that a small step is not rounded away."""
    return Molecules(
        positions * molecules.node_mask.unsqueeze(-1), molecules.atomic_numbers, molecules.node_mask
    )


def _noise(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)


def _close(mine: Tensor, theirs: Tensor, tolerance: float) -> bool:
    return bool(((mine.double() - theirs.double()).abs() <= tolerance).all())
