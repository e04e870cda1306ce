"""DFT as a force field, one molecule after the other on all cores: for few molecules.

    DftForceField("dft:fast").evaluate(molecules)          # or dft:pbe0/def2-svp, ...

Many molecules are the business of ``elign evaluate --dft``, which has workers, time limits and a memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.checks import DEFAULT_CHECKS, Checks
from elign.reward_server.dft import known_elements, parse_level, single_point
from elign.reward_server.one_by_one import SinglePoint, Structure, evaluate_one_by_one

PREFIX = "dft:"
_HEAVIEST = 86


class DftForceField:
    """A level of theory as a ``ForceField``: neutral molecules of lowest spin, energies from free atoms."""

    def __init__(self, name: str, checks: Checks = DEFAULT_CHECKS) -> None:
        """name: ``dft:LEVEL``, see ``parse_level``. Raises ForceFieldError for an unknown one."""
        self.name = name
        self.checks = checks
        self._level = parse_level(name.removeprefix(PREFIX))
        self.elements = known_elements(self._level, range(1, _HEAVIEST + 1))
        self._free_atoms: dict[int, float] = {}

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies and forces; raises ForceFieldError where PySCF is missing."""
        return evaluate_one_by_one(molecules, self.elements, self.checks, self._answers, self._free_atom)

    def _answers(self, structures: Sequence[Structure]) -> Iterator[SinglePoint | Failure]:
        for numbers, positions in structures:
            answer = single_point(self._level, numbers, positions)
            yield answer if isinstance(answer, Failure) else (answer.energy, answer.forces)

    def _free_atom(self, number: int) -> float:
        if number not in self._free_atoms:
            answer = single_point(self._level, np.array([number]), np.zeros((1, 3)))
            if isinstance(answer, Failure):
                raise ForceFieldError(f"{self.name} did not converge for a free atom of number {number}")
            self._free_atoms[number] = answer.energy
        return self._free_atoms[number]
