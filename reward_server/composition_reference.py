"""Energies that count from what the data have of the same composition, whatever the force field counts from.

A policy then earns no energy by another mix of elements, which it does where energies count from free atoms
(foundation models, ASE calculators, DFT).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from elign.common.composition import fit_composition
from elign.common.molecules import Molecules
from elign.common.scoring import ForceField, ForceFieldResult

FITTED = 512
"""Molecules of the data that are evaluated for the fit."""


class AboveComposition:
    """A force field with other formation energies; everything else is the inner one's."""

    def __init__(self, inner: ForceField, data: Molecules) -> None:
        """data: evaluated once, here, every n-th of it. Raises DataError when it has no energy."""
        self._inner, self.name = inner, inner.name
        fitted = data[torch.linspace(0, len(data) - 1, min(FITTED, len(data))).long()]
        self._baseline = fit_composition(fitted, _above_references(inner.evaluate(fitted), fitted))

    @property
    def elements(self) -> frozenset[int]:
        return self._inner.elements

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """As the inner one's, with formation energies above the data's fit, eV/atom."""
        result = self._inner.evaluate(molecules)
        above = self._baseline.per_atom(molecules, _above_references(result, molecules))
        return replace(result, formation_energy=torch.from_numpy(above))


def _above_references(result: ForceFieldResult, molecules: Molecules) -> np.ndarray:
    """[B] eV."""
    energy: np.ndarray = (result.formation_energy * molecules.num_atoms.cpu()).numpy()
    return energy
