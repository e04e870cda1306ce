"""What an energy owes to its composition alone: a least-squares fit of energies to numbers of atoms.

Energies that count from free atoms fall when light atoms replace heavy ones; what is left after the fit says
whether a molecule is strained, broken or odd for what it is made of.

    baseline = fit_composition(data, energies)        # of reference molecules, eV
    baseline.per_atom(molecules, energies)            # [B] eV/atom above what is typical
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from elign.common.errors import DataError
from elign.common.molecules import Molecules


@dataclass(frozen=True)
class CompositionBaseline:
    """coefficients: eV by atomic number. default: eV of an element the fit has not seen. count: molecules."""

    coefficients: Mapping[int, float]
    default: float
    count: int

    def per_atom(self, molecules: Molecules, energies: np.ndarray) -> np.ndarray:
        """[B] eV/atom: (energy - sum of the coefficients) / number of atoms; NaN where the energy is."""
        typical = np.array(
            [
                sum(self.coefficients.get(int(z), self.default) for z in numbers)
                for numbers, _ in molecules.arrays()
            ]
        )
        sizes = molecules.num_atoms.cpu().numpy()
        result: np.ndarray = (energies - typical) / np.maximum(sizes, 1)
        return result


def fit_composition(molecules: Molecules, energies: np.ndarray) -> CompositionBaseline:
    """Fit to the molecules whose energy [B] eV is finite; energies count from free atoms.

    Where the molecules do not determine a coefficient it stays near the mean energy of an atom. Raises
    DataError when no energy is finite.
    """
    known = np.isfinite(energies)
    if not known.any():
        raise DataError("no reference molecule has an energy, so there is no composition baseline")
    chosen = [numbers for (numbers, _), use in zip(molecules.arrays(), known, strict=True) if use]
    elements = sorted({int(z) for numbers in chosen for z in numbers})
    counts = np.array([[(numbers == z).sum() for z in elements] for numbers in chosen], dtype=np.float64)
    mean = float(energies[known].sum() / counts.sum())
    # the smallest deviation from the mean that fits best
    deviation, *_ = np.linalg.lstsq(counts, energies[known] - mean * counts.sum(1), rcond=1e-8)
    coefficients = {z: mean + float(d) for z, d in zip(elements, deviation, strict=True)}
    return CompositionBaseline(coefficients, mean, len(chosen))
