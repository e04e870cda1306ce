"""Two atoms pulled apart: does a force field repel where it must, and has it no well where there is no bond?

A policy finds every hole in its reward. The first place to look is what a pair of atoms feels from far inside
each other out to the cut-off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii

from elign.common.molecules import Molecules
from elign.common.scoring import ForceField
from elign.reward_server.checks import Checks

INSIDE = 0.6
"""Closer than this part of a bond's length, atoms must repel each other."""
BONDED = (0.7, 1.6)
"""Where a minimum may lie, in bond lengths (sums of covalent radii)."""
SHALLOW = 0.1
"""eV: a minimum of less depth is roughness, not a well."""
NO_CHECKS = Checks(min_distance=0.0, force_limit=math.inf, one_piece=False)


@dataclass(frozen=True)
class PairScan:
    """elements: two atomic numbers. distances: [n] Å, ascending. energy: [n] eV.

    force: [n] eV/Å, above 0 where it drives the atoms apart.
    """

    elements: tuple[int, int]
    distances: np.ndarray
    energy: np.ndarray
    force: np.ndarray

    @property
    def bond(self) -> float:
        """Sum of the covalent radii, Å."""
        return float(covalent_radii[list(self.elements)].sum())

    @property
    def name(self) -> str:
        return "-".join(chemical_symbols[z] for z in self.elements)

    def holes(self) -> list[str]:
        """What is wrong with the curve, in words; empty when nothing is."""
        inside = self.distances < INSIDE * self.bond
        found = [
            f"{self.name}: attracts at {distance:.2f} Å"
            for distance in self.distances[inside & ~(self.force > 0)]
        ]
        return found + [
            f"{self.name}: a well of {depth:.2f} eV at {distance:.2f} Å"
            for distance, depth in self._wells()
            if not BONDED[0] * self.bond < distance < BONDED[1] * self.bond
        ]

    def _wells(self) -> Iterator[tuple[float, float]]:
        """(distance, depth against the lower of its two rims) of every minimum that is not shallow."""
        for i in range(1, len(self.energy) - 1):
            if self.energy[i - 1] > self.energy[i] <= self.energy[i + 1]:
                depth = min(self.energy[:i].max(), self.energy[i + 1 :].max()) - self.energy[i]
                if depth > SHALLOW:
                    yield float(self.distances[i]), float(depth)


def scan_pairs(field: ForceField, distances: np.ndarray, elements: Sequence[int]) -> list[PairScan]:
    """Energy and force of every pair of ``elements`` at every distance ([n] Å, ascending).

    field: one whose checks let such pairs pass, as those of ``NO_CHECKS`` do.
    """
    pairs = list(combinations_with_replacement(elements, 2))
    positions = np.zeros((len(distances), 2, 3))
    positions[:, 1, 0] = distances
    molecules = Molecules.from_lists(
        [np.array(pair) for pair in pairs for _ in distances], [x for _ in pairs for x in positions]
    )
    result = field.evaluate(molecules)
    energy = result.energy.view(len(pairs), -1).numpy()
    force = result.forces[:, 1, 0].to(torch.float64).view(len(pairs), -1).numpy()
    return [PairScan(pair, distances, *answer) for pair, *answer in zip(pairs, energy, force, strict=True)]
