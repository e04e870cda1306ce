"""Structures to train a force field on, made from clean molecules: near equilibrium, displaced, broken.

A reward model is asked about everything between noise-made wreckage and relaxed molecules, and both ends
matter: wreckage is where training begins, the neighbourhood of equilibrium is where good samples end up.
Everything here is plain arrays and an explicit random generator; the labels come from ``labels``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

Family = Literal["equilibrium", "displaced", "broken"]
"""What is made from clean molecules; each family has one or more kinds."""

_DISPLACEMENTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)  # Å, standard deviation of each coordinate

EQUILIBRIUM_KINDS = ("data", "relaxed", "near")
"""As in the data set; at the minimum of GFN2-xTB; a few hundredths of an Å from either."""

CALM_KINDS = ("data", "relaxed")

KINDS = (*EQUILIBRIUM_KINDS, *(f"displaced {sigma:g}" for sigma in _DISPLACEMENTS), "broken", "pair")
"""What is made from clean molecules, finely; samples have the name they were given and ``near NAME``."""

_BROKEN_NOISE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
_HEAVY = np.array([6, 7, 8, 9])
_RELAXED_SHARE = 0.1
_PAIR_DISTANCES = (0.4, 5.0)  # Å
_BOND = 1.8  # Å: pairs closer than this count as bonded when one bond is stretched or squeezed


@dataclass(frozen=True)
class Structure:
    """One structure to be labelled.

    kind: what it is; errors are reported by kind. source: which molecule it was made from (structures of one
    source never straddle training and held-out data). relax: label instead three structures on and around the
    minimum that GFN2-xTB finds from here. seed: of the random numbers that relaxing needs.
    """

    kind: str
    source: int
    atomic_numbers: np.ndarray
    positions: np.ndarray
    relax: bool = False
    seed: int = 0


Molecule = tuple[np.ndarray, np.ndarray]


def make_structures(
    molecules: Sequence[Molecule], counts: Mapping[Family, int], rng: np.random.Generator
) -> list[Structure]:
    """As many structures of each family as ``counts`` says, from molecules drawn at random.

    molecules: (atomic numbers [n], positions [n, 3] in Å), near equilibrium. The order of kinds is mixed.
    """
    structures = [
        _MAKERS[family](int(source), *molecules[int(source)], rng)
        for family, count in counts.items()
        for source in rng.integers(len(molecules), size=count)
    ]
    return [structures[i] for i in rng.permutation(len(structures))]


def pair_structures(
    elements: Sequence[int], count: int, first_source: int, rng: np.random.Generator
) -> list[Structure]:
    """``count`` pairs of atoms of every two elements, from far inside each other to out of reach."""
    pairs = [pair for pair in combinations_with_replacement(elements, 2) for _ in range(count)]
    distances = rng.uniform(*_PAIR_DISTANCES, size=len(pairs))
    return [
        Structure("pair", first_source + i, np.array(pair), np.array([[0.0, 0, 0], [distance, 0, 0]]))
        for i, (pair, distance) in enumerate(zip(pairs, distances, strict=True))
    ]


def sample_structures(
    name: str, samples: Sequence[Molecule], first_source: int, rng: np.random.Generator
) -> list[Structure]:
    """Samples as they are, and each once more, displaced or on its way to a minimum: kinds NAME, near NAME.

    Their chemistry is unlike the data set's, and a policy that improves moves from such a sample towards the
    minimum nearby. samples: (atomic numbers [n], positions [n, 3] in Å), numbered from ``first_source`` on.
    """
    structures = []
    for source, (numbers, positions) in enumerate(samples, start=first_source):
        structures.append(Structure(name, source, numbers, positions))
        near = f"near {name}"
        if rng.random() < _RELAXED_SHARE:
            seed = int(rng.integers(2**31))
            structures.append(Structure(near, source, numbers, positions, relax=True, seed=seed))
        else:
            noise = rng.uniform(0.02, 0.15)
            structures.append(Structure(near, source, numbers, _noisy(positions, noise, rng)))
    return structures


def _equilibrium(
    source: int, numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> Structure:
    """As they are, slightly displaced, or to be relaxed (three labels each): 2 : 2 : 1."""
    choice = rng.integers(5)
    if choice == 0:
        return Structure("relaxed", source, numbers, positions, relax=True, seed=int(rng.integers(2**31)))
    if choice <= 2:
        return Structure("data", source, numbers, positions)
    return Structure("near", source, numbers, _noisy(positions, rng.uniform(0.01, 0.05), rng))


def _displaced(
    source: int, numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> Structure:
    sigma = rng.choice(_DISPLACEMENTS)
    return Structure(f"displaced {sigma:g}", source, numbers, _noisy(positions, sigma, rng))


def _broken(source: int, numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Structure:
    """One to three injuries, then noise: what a weak policy's samples look like."""
    for _ in range(rng.integers(1, 4)):
        injury = _INJURIES[rng.integers(len(_INJURIES))]
        numbers, positions = injury(numbers, positions, rng)
    return Structure("broken", source, numbers, _noisy(positions, rng.choice(_BROKEN_NOISE), rng))


_MAKERS = {"equilibrium": _equilibrium, "displaced": _displaced, "broken": _broken}


def _noisy(positions: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return positions + sigma * rng.standard_normal(positions.shape)


def _swap_element(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Molecule:
    numbers = numbers.copy()
    numbers[rng.integers(len(numbers))] = rng.choice(np.append(_HEAVY, 1))
    return numbers, positions


def _delete_hydrogen(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Molecule:
    hydrogens = np.flatnonzero(numbers == 1)
    if len(hydrogens) == 0 or len(numbers) < 4:
        return numbers, positions
    keep = np.arange(len(numbers)) != rng.choice(hydrogens)
    return numbers[keep], positions[keep]


def _add_hydrogen(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Molecule:
    direction = rng.standard_normal(3)
    site = positions[rng.integers(len(numbers))] + rng.uniform(0.9, 1.5) * direction / np.linalg.norm(
        direction
    )
    return np.append(numbers, 1), np.vstack([positions, site])


def _change_bond(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Molecule:
    """Stretch or squeeze one bond, moving every atom beyond its middle along with its end."""
    distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    pairs = np.argwhere((distances < _BOND) & (distances > 0))
    if len(pairs) == 0:
        return numbers, positions
    i, j = pairs[rng.integers(len(pairs))]
    axis = (positions[j] - positions[i]) / distances[i, j]
    beyond = (positions - (positions[i] + positions[j]) / 2) @ axis > 0
    shift = (rng.uniform(0.7, 1.5) - 1) * distances[i, j]
    return numbers, positions + shift * beyond[:, None] * axis


def _compress(numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> Molecule:
    centre = positions.mean(0)
    return numbers, centre + rng.uniform(0.85, 1.15) * (positions - centre)


_INJURIES = (_swap_element, _delete_hydrogen, _add_hydrogen, _change_bond, _compress)
