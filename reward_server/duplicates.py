"""No structure is evaluated twice: the different molecules of a batch, and where each of its rows is found.

The K samples of a group share their branch state, so its predicted molecule comes K times; a molecule that
several callers ask about is another case.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult


def unique_molecules(molecules: Molecules) -> tuple[Molecules, Tensor]:
    """(the different molecules in order of first appearance, [B] int64 index of each row among them).

    Equal means equal to the last bit, elements and padding included, so the answer is that of the row itself.
    """
    count = len(molecules)
    if count < 2:
        return molecules, torch.arange(count)
    arrays = (molecules.positions, molecules.atomic_numbers, molecules.node_mask)
    rows = [array.cpu().contiguous().numpy().reshape(count, -1).view(np.uint8) for array in arrays]
    joined = np.ascontiguousarray(np.concatenate(rows, axis=1))
    keys = joined.view(np.dtype((np.void, joined.shape[1]))).ravel() if joined.shape[1] else np.zeros(count)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == count:
        return molecules, torch.arange(count)
    by_appearance = np.argsort(first)
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(first))
    return molecules[torch.from_numpy(np.sort(first))], torch.from_numpy(rank[inverse])


def expand_result(result: ForceFieldResult, index: Tensor) -> ForceFieldResult:
    """The answers of the rows that ``index`` [B] names."""
    failures = tuple(result.failures[i] for i in index.tolist())
    return ForceFieldResult(
        result.energy[index], result.forces[index], result.formation_energy[index], failures
    )
