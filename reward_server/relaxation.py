"""Relaxation of many molecules at once by any force field: how far each is from its own minimum.

What a relaxation gains in energy cannot be had by another composition, so it says more of a sample than its
energy does. Limited-memory BFGS, all molecules in step, none moved further than a fixed length at once; the
force field sees those that are not done yet as one batch.

    relaxed = relax(load_force_field("elign-mace-small"), molecules, "qm9")
    relaxed.energy_drop, relaxed.rmsd, relaxed.bonds_kept       # eV/atom, Å, bool; each [B]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from elign.common.geometry import aligned_rmsd
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceField, Relaxation
from elign.common.stability import bond_orders

MEMORY = 20
LONGEST_MOVE = 0.2
"""Å that the atom which moves most may move in a step."""
_STIFFNESS = 70.0
"""eV/Å² of the first guess at the curvature, about that of a bond."""


def relax(
    force_field: ForceField,
    molecules: Molecules,
    dataset: str,
    *,
    max_force: float = 0.05,
    max_steps: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Relaxation:
    """Go downhill until the largest force on an atom is below ``max_force`` (eV/Å), or for ``max_steps``.

    dataset: qm9 or geom, decides bond tables. progress(done, total) counts molecules. A molecule that the
    force field refuses, now or on the way (it fell apart, say), has the name of that failure.
    """
    count, start = len(molecules), molecules.to("cpu")
    x = start.positions.double().clone()
    search = _Search(x)
    first, last = (torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2))
    steps = torch.zeros(count, dtype=torch.long)
    converged = torch.zeros(count, dtype=torch.bool)
    failures: list[Failure | None] = [None] * count
    active = torch.arange(count)
    for step in range(max_steps + 1):
        result = force_field.evaluate(_at(start, x)[active])
        good = torch.tensor([failure is None for failure in result.failures], dtype=torch.bool)
        for i, failure in zip(active.tolist(), result.failures, strict=True):
            failures[i] = failure
        if step == 0:
            first[active] = result.energy
        forces = result.forces.double()
        calm = good & (torch.linalg.vector_norm(forces, dim=-1).amax(1) < max_force)
        converged[active[calm]], steps[active] = True, step
        last[active] = result.energy
        going = good & ~calm
        active, forces, energy = active[going], forces[going], result.energy[going]
        if progress is not None:
            progress(count - len(active), count)
        if not len(active) or step == max_steps:
            break
        x[active] += search.step(active, x[active], forces, energy)
    return _relaxation(start, _at(start, x), (first - last), steps, converged, failures, dataset)


class _Search:
    """L-BFGS of B independent problems of the same padded size; padding has no force and never moves."""

    def __init__(self, x: Tensor) -> None:
        size = (MEMORY, len(x), x.shape[1] * 3)
        self._moves, self._changes = x.new_zeros(size), x.new_zeros(size)
        self._weights = x.new_zeros(MEMORY, len(x))  # 0: no such entry
        self._x, self._forces = x.new_zeros(size[1:]), x.new_zeros(size[1:])
        self._energy = x.new_full((len(x),), torch.inf)
        self._count = 0

    def step(self, index: Tensor, x: Tensor, forces: Tensor, energy: Tensor) -> Tensor:
        """How to move the molecules ``index`` [A] on, [A, N, 3] Å, from what the force field says of them."""
        flat, down = x.flatten(1), forces.flatten(1)
        if self._count:
            self._remember(index, flat, down, energy)
        self._x[index], self._forces[index], self._energy[index] = flat, down, energy
        self._count += 1
        move = self._direction(index, down).reshape(x.shape)
        longest = torch.linalg.vector_norm(move, dim=-1).amax(1).clamp(min=LONGEST_MOVE)
        bounded: Tensor = move * (LONGEST_MOVE / longest)[:, None, None]
        return bounded

    def _remember(self, index: Tensor, x: Tensor, forces: Tensor, energy: Tensor) -> None:
        """The newest entry goes where the oldest was; who went uphill, or saw no curvature, starts anew."""
        slot = self._count % MEMORY
        move, change = x - self._x[index], self._forces[index] - forces
        curvature = (move * change).sum(1)
        sound = curvature > 1e-10
        self._moves[slot, index], self._changes[slot, index] = move, change
        self._weights[slot, index] = torch.where(sound, 1 / curvature.clamp(min=1e-10), 0.0)
        lost = index[energy > self._energy[index]]
        self._weights[:, lost] = 0.0

    def _direction(self, index: Tensor, forces: Tensor) -> Tensor:
        """The two-loop recursion, newest entry first."""
        slots = [(self._count - 1 - k) % MEMORY for k in range(min(self._count - 1, MEMORY))]
        move, shares = forces.clone(), {}
        for slot in slots:
            shares[slot] = self._weights[slot, index] * (self._moves[slot, index] * move).sum(1)
            move = move - shares[slot][:, None] * self._changes[slot, index]
        move = move / _STIFFNESS
        for slot in reversed(slots):
            other = self._weights[slot, index] * (self._changes[slot, index] * move).sum(1)
            move = move + (shares[slot] - other)[:, None] * self._moves[slot, index]
        return move


def _at(molecules: Molecules, x: Tensor) -> Molecules:
    return Molecules(x.to(molecules.positions.dtype), molecules.atomic_numbers, molecules.node_mask)


def _relaxation(
    before: Molecules,
    after: Molecules,
    energy_drop: Tensor,
    steps: Tensor,
    converged: Tensor,
    failures: list[Failure | None],
    dataset: str,
) -> Relaxation:
    failed = torch.tensor([failure is not None for failure in failures], dtype=torch.bool)
    kept = ((bond_orders(before, dataset) > 0) == (bond_orders(after, dataset) > 0)).flatten(1).all(1)
    return Relaxation(
        after,
        (energy_drop / before.num_atoms.clamp(min=1)).masked_fill(failed, torch.nan),
        aligned_rmsd(before, after).double().masked_fill(failed, torch.nan),
        steps,
        converged & ~failed,
        kept & ~failed,
        tuple(failures),
    )
