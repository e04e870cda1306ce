"""GFN2-xTB by tblite as a force field: for labels, and as a judge the policy was never trained on.

Exact to its method and slow (about 10-30 ms a molecule of QM9 size on one core), so it works in several
processes:

    judge = Gfn2ForceField(processes=2)
    judge.evaluate(molecules).rms_force(molecules.node_mask)     # [B] eV/Å
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from ase.units import Bohr, Hartree

from elign.common.child_process import end_with_parent
from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.common.threads import one_thread
from elign.reward_server.checks import DEFAULT_CHECKS, Checks
from elign.reward_server.one_by_one import SinglePoint, Structure, evaluate_one_by_one

ELEMENTS = frozenset(range(1, 87))
_CHUNK = 8  # molecules per message to a worker process

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gfn2ForceField:
    """GFN2-xTB as a ``ForceField``: neutral molecules, the lowest spin their electrons allow."""

    name = "gfn2-xtb"
    elements = ELEMENTS

    def __init__(
        self,
        *,
        processes: int = 1,
        reference_energies: Mapping[int, float] | None = None,
        checks: Checks = DEFAULT_CHECKS,
    ) -> None:
        """processes: how many evaluate at once (1: in this process).

        reference_energies: eV by atomic number, for ``formation_energy``; those of free GFN2-xTB atoms when
        None. Pass another force field's to compare the two on one scale: elements without an entry become
        unsupported.
        """
        self.processes = processes
        self.checks = checks
        self._references = dict(reference_energies) if reference_energies is not None else None
        if self._references is not None:
            self.elements = ELEMENTS & frozenset(self._references)

    def evaluate(
        self, molecules: Molecules, progress: Callable[[int, int], None] | None = None
    ) -> ForceFieldResult:
        """Energies and forces; a calculation that does not converge is a named failure.

        Raises ForceFieldError when a worker process dies.
        """
        known = self._references
        return evaluate_one_by_one(
            molecules,
            self.elements,
            self.checks,
            self._answers,
            free_atom_energy if known is None else known.__getitem__,
            progress,
        )

    def _answers(self, structures: Sequence[Structure]) -> Iterator[SinglePoint | Failure]:
        if self.processes == 1:
            with one_thread():  # tblite shares torch's OpenMP; a molecule is too small to be shared out
                yield from map(_single_point_of, structures)
        else:
            yield from map_in_processes(_single_point_of, structures, self.processes)


def single_point(atomic_numbers: np.ndarray, positions: np.ndarray) -> SinglePoint | Failure:
    """(energy in eV, forces [n, 3] in eV/Å) of one neutral molecule; positions: [n, 3] Å."""
    return Calculation(atomic_numbers, positions)(positions)


class Calculation:
    """GFN2-xTB of one molecule at one geometry after another, each from the last electron density."""

    def __init__(self, atomic_numbers: np.ndarray, positions: np.ndarray) -> None:
        from tblite import interface  # here: importing the registry stays quick

        self._calculator = interface.Calculator(
            "GFN2-xTB",
            np.asarray(atomic_numbers),
            np.asarray(positions, dtype=np.float64) / Bohr,
            charge=0.0,
            uhf=int(np.sum(atomic_numbers) % 2),
        )
        self._calculator.set("verbosity", 0)
        self._runtime_error: type[Exception] = interface.TBLiteRuntimeError
        self._density: Any = None

    def __call__(self, positions: np.ndarray) -> SinglePoint | Failure:
        """As ``single_point``."""
        self._calculator.update(positions=np.asarray(positions, dtype=np.float64) / Bohr)
        try:
            result = self._calculator.singlepoint(self._density, copy=True)
        except self._runtime_error:
            return Failure.NOT_CONVERGED
        self._density = result
        return float(result.get("energy")) * Hartree, -result.get("gradient") * (Hartree / Bohr)


@cache
def free_atom_energy(atomic_number: int) -> float:
    """eV: a free neutral atom in GFN2-xTB, the reference of its formation energies."""
    answer = single_point(np.array([atomic_number]), np.zeros((1, 3)))
    if isinstance(answer, Failure):
        raise ForceFieldError(f"GFN2-xTB did not converge for a free atom of atomic number {atomic_number}")
    return answer[0]


def map_in_processes(
    function: Callable[[Item], Answer], items: Sequence[Item], processes: int
) -> Iterator[Answer]:
    """``function`` of each item, in order, in fresh processes with one thread each.

    Raises ForceFieldError when a process dies.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise ForceFieldError(
                f"a GFN2-xTB worker process died while judging {len(items)} molecules (out of memory?); "
                f"try again with fewer than {processes} processes"
            ) from error


def _start_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()


def _single_point_of(structure: Structure) -> SinglePoint | Failure:
    return single_point(*structure)
