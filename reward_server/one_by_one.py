"""Methods that know one molecule at a time, made into a ``ForceField``: checks, answers, named failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.checks import Checks, assemble_result, check_forces, check_structures

SinglePoint = tuple[float, np.ndarray]
"""Energy in eV and forces [n, 3] in eV/Å of one molecule."""
Structure = tuple[np.ndarray, np.ndarray]
"""Atomic numbers [n] and positions [n, 3] in Å."""


def evaluate_one_by_one(
    molecules: Molecules,
    elements: Iterable[int],
    checks: Checks,
    answer: Callable[[Sequence[Structure]], Iterator[SinglePoint | Failure]],
    reference_energy: Callable[[int], float],
    progress: Callable[[int, int], None] | None = None,
) -> ForceFieldResult:
    """As ``ForceField.evaluate``.

    answer: the single points of structures that passed the checks, in order. reference_energy: eV of an
    atomic number, for the formation energy. progress(done, total) counts those structures.
    """
    failures = list(check_structures(molecules, elements, checks))
    energy = torch.full((len(molecules),), torch.nan, dtype=torch.float64)
    references = torch.full((len(molecules),), torch.nan, dtype=torch.float64)
    forces = torch.zeros_like(molecules.positions, device="cpu")
    structures = list(molecules.arrays())
    todo = [i for i, failure in enumerate(failures) if failure is None]
    answers = answer([structures[i] for i in todo])
    for done, (index, single) in enumerate(zip(todo, answers, strict=True), start=1):
        if isinstance(single, Failure):
            failures[index] = single
        else:
            energy[index] = single[0]
            references[index] = sum(reference_energy(int(z)) for z in structures[index][0])
            forces[index, molecules.node_mask[index].cpu()] = torch.from_numpy(single[1]).to(forces)
        if progress is not None:
            progress(done, len(todo))
    for index in check_forces(forces, energy, checks.force_limit).nonzero().flatten().tolist():
        failures[index] = failures[index] or Failure.FORCE_LIMIT
    return assemble_result(molecules, energy, forces, references, failures)
