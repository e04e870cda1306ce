"""Any ASE calculator as a ``ForceField``, by the place it is imported from and keyword arguments.

    AseForceField("ase:tblite.ase:TBLite", {"method": "GFN2-xTB", "verbosity": 0})
    AseForceField("ase:ase.calculators.emt:EMT", {})

Orb, AIMNet2, FAIRChem's models and others come with such a calculator. It sees one molecule at a time; what
it raises for one molecule becomes that molecule's failure. Formation energies count from its own free atoms,
and an element whose free atom it refuses is one it does not know.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError

from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.checks import DEFAULT_CHECKS, Checks
from elign.reward_server.mace_model import UNRESTRICTED_LOAD, importing_mace
from elign.reward_server.one_by_one import SinglePoint, Structure, evaluate_one_by_one

PREFIX = "ase:"
Option = str | int | float | bool | None
_ONE_MOLECULE = (CalculatorError, NotImplementedError, ArithmeticError, LookupError, ValueError, RuntimeError)
"""What calculators raise about the molecule at hand; anything else is a defect of theirs or of the set-up."""


class AseForceField:
    """See the module. Not for use by several threads at once, as its calculator is not."""

    def __init__(self, name: str, options: Mapping[str, Option], checks: Checks = DEFAULT_CHECKS) -> None:
        """name: ``ase:package.module:Class``; options: its keyword arguments.

        Raises ForceFieldError when it cannot be imported or built.
        """
        self.name = name
        self.checks = checks
        self._calculator = _build(name, options)
        self._free_atoms: dict[int, float | None] = {}

    @property
    def elements(self) -> frozenset[int]:
        """All that it has not refused so far: a calculator does not say before it is asked."""
        refused = {number for number, energy in self._free_atoms.items() if energy is None}
        return frozenset(range(1, 119)) - refused

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies and forces; raises ForceFieldError when the calculator itself is broken."""
        real = molecules.atomic_numbers[molecules.node_mask]
        for number in real.unique().tolist():
            self._free_atom(int(number))
        return evaluate_one_by_one(molecules, self.elements, self.checks, self._answers, self._reference)

    def _answers(self, structures: Sequence[Structure]) -> Iterator[SinglePoint | Failure]:
        for numbers, positions in structures:
            yield self._single_point(numbers, positions) or Failure.CALCULATION_FAILED

    def _reference(self, number: int) -> float:
        energy = self._free_atom(number)
        if energy is None:
            raise ForceFieldError(f"{self.name} has no energy of a free atom of atomic number {number}")
        return energy

    def _free_atom(self, number: int) -> float | None:
        """eV; None where the calculator refuses the element."""
        if number not in self._free_atoms:
            known = 1 <= number <= 118
            answer = self._single_point(np.array([number]), np.zeros((1, 3))) if known else None
            self._free_atoms[number] = answer[0] if answer is not None and np.isfinite(answer[0]) else None
        return self._free_atoms[number]

    def _single_point(self, numbers: np.ndarray, positions: np.ndarray) -> SinglePoint | None:
        """None where the calculator gives up on this molecule."""
        atoms = Atoms(numbers, positions.astype(np.float64))
        self._calculator.reset()  # else an answer may depend on the molecule before it
        try:
            energy = float(self._calculator.get_potential_energy(atoms))
            return energy, np.asarray(self._calculator.get_forces(atoms), dtype=np.float64)
        except _ONE_MOLECULE:
            return None
        except Exception as error:
            raise ForceFieldError(f"{self.name} failed: {type(error).__name__}: {error}") from error


def check_name(name: str) -> tuple[str, str]:
    """(module, class) of ``ase:package.module:Class``; raises ForceFieldError for another form."""
    module, _, attribute = name.removeprefix(PREFIX).partition(":")
    if not module or not attribute:
        raise ForceFieldError(
            f"force field {name!r}: an ASE calculator is named ase:package.module:Class, "
            "such as ase:tblite.ase:TBLite"
        )
    return module, attribute


def _build(name: str, options: Mapping[str, Option]) -> Any:
    module, attribute = check_name(name)
    try:
        with importing_mace():  # it, or what is built on it, must not switch torch to unrestricted pickles
            if module.partition(".")[0] == "mace":
                # mace's own calculator opens whole pickles: who names it with a file trusts that file
                os.environ[UNRESTRICTED_LOAD] = "1"
            calculator = getattr(importlib.import_module(module), attribute)(**options)
    except ImportError as error:
        raise ForceFieldError(
            f"force field {name!r}: {error}; install it, or name another Python in reward.runtime_env"
        ) from error
    except AttributeError as error:
        raise ForceFieldError(f"force field {name!r}: {error}") from error
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise ForceFieldError(f"force field {name!r} cannot be built with {given}: {error}") from error
    missing = [
        word for word in ("reset", "get_potential_energy", "get_forces") if not hasattr(calculator, word)
    ]
    if missing:
        raise ForceFieldError(f"force field {name!r} is no ASE calculator: it has no {', '.join(missing)}")
    return calculator
