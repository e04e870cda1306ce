"""DFT of many molecules: which can be treated, what is still to be computed, and the answers put together.

batch = DftBatch(molecules, level, max_atoms=60)
for structure in batch.missing(table, time_limit_s=600): table.add(level, structure, ...)
batch.result(table)         # ForceFieldResult; formation energies count from free atoms at the same level
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from elign.common.errors import ConfigError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.checks import DEFAULT_CHECKS, assemble_result, check_forces, check_structures
from elign.reward_server.dft import DftLevel, known_elements, runs_on_gpu
from elign.reward_server.dft_table import DftRecord, DftTable, failure_of
from elign.reward_server.one_by_one import Structure


@dataclass(frozen=True)
class DftSettings:
    """What is computed, and at which cost.

    number: molecules of each set, its first. workers: processes of one core. time_limit_s: of a molecule, by
    the clock. max_atoms: larger molecules are not tried.
    """

    level: DftLevel
    number: int
    workers: int
    time_limit_s: float = 1800.0
    max_atoms: int = 60

    def __post_init__(self) -> None:
        if self.workers < 1 or self.number < 1 or self.time_limit_s <= 0:
            raise ConfigError("DFT needs at least one worker, one molecule and a time limit above 0")


def default_workers() -> int:
    """One a core this process may use; one alone where a GPU does the work."""
    return 1 if runs_on_gpu() else len(os.sched_getaffinity(0))


class DftBatch:
    """B molecules at one level; failures: B entries, those that need no calculation to be known."""

    def __init__(self, molecules: Molecules, level: DftLevel, *, max_atoms: int) -> None:
        self.molecules, self.level = molecules, level
        self._structures = list(molecules.arrays())
        elements = known_elements(level, molecules.atomic_numbers[molecules.node_mask].tolist())
        found = check_structures(molecules, elements, DEFAULT_CHECKS)
        self.failures = tuple(
            Failure.TOO_MANY_ATOMS if failure is None and len(numbers) > max_atoms else failure
            for failure, (numbers, _) in zip(found, self._structures, strict=True)
        )

    def missing(self, table: DftTable, *, time_limit_s: float) -> Iterator[Structure]:
        """Free atoms, then molecules, without an answer in the table; each once.

        What a shorter limit has ended is missing too, and so is what ended with its process.
        """
        seen: set[bytes] = set()
        for structure in [*self._free_atoms().values(), *self._treated()]:
            identity = structure[0].tobytes() + structure[1].tobytes()
            if identity not in seen and _is_open(table.find(self.level, structure), time_limit_s):
                yield structure
            seen.add(identity)

    def result(self, table: DftTable) -> ForceFieldResult:
        """Everything the table knows; a molecule it does not know has CALCULATION_FAILED."""
        count = len(self.molecules)
        energy, references = (torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2))
        forces = torch.zeros(self.molecules.positions.shape, dtype=torch.float64)
        failures = list(self.failures)
        atoms = {z: table.find(self.level, atom) for z, atom in self._free_atoms().items()}
        for i, (numbers, positions) in enumerate(self._structures):
            if failures[i] is not None:
                continue
            record = table.find(self.level, (numbers, positions))
            if record is None or record.energy is None or record.forces is None:
                failures[i] = Failure.CALCULATION_FAILED if record is None else failure_of(record)
                continue
            energy[i] = record.energy
            references[i] = sum(_energy(atoms[int(z)]) for z in numbers)
            own = torch.tensor(record.forces, dtype=torch.float64).reshape(-1, 3)
            forces[i, self.molecules.node_mask[i].cpu()] = own
        for i in check_forces(forces, energy, DEFAULT_CHECKS.force_limit).nonzero().flatten().tolist():
            failures[i] = failures[i] or Failure.FORCE_LIMIT
        return assemble_result(self.molecules, energy, forces, references, failures)

    def _treated(self) -> Iterator[Structure]:
        for structure, failure in zip(self._structures, self.failures, strict=True):
            if failure is None:
                yield structure

    def _free_atoms(self) -> dict[int, Structure]:
        elements = sorted({int(z) for numbers, _ in self._treated() for z in numbers})
        return {z: (np.array([z]), np.zeros((1, 3), dtype=np.float32)) for z in elements}


def _is_open(record: DftRecord | None, time_limit_s: float) -> bool:
    if record is None or record.failure == Failure.WORKER_DIED:
        return True
    return record.failure == Failure.TIME_LIMIT and record.seconds < time_limit_s


def _energy(record: DftRecord | None) -> float:
    """NaN where a free atom could not be computed: then no formation energy counts from it."""
    return float("nan") if record is None or record.energy is None else record.energy
