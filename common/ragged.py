"""Between padded batches and flat arrays with one row an atom, as files hold them; no loop over molecules."""

from __future__ import annotations

import numpy as np
import torch

from elign.common.molecules import Molecules


def to_ragged(molecules: Molecules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(atomic numbers [M] int64, positions [M, 3] in Å, lengths [B] int64); M atoms in B molecules."""
    mask = molecules.node_mask
    numbers, positions = molecules.atomic_numbers[mask], molecules.positions[mask]
    return numbers.cpu().numpy(), positions.cpu().numpy(), molecules.num_atoms.cpu().numpy()


def from_ragged(numbers: np.ndarray, positions: np.ndarray, lengths: np.ndarray) -> Molecules:
    """The padded batch of flat arrays as ``to_ragged`` gives them; positions become float32."""
    size = int(lengths.max(initial=0))
    mask = np.arange(size)[None, :] < lengths[:, None]
    padded_numbers = np.zeros(mask.shape, dtype=np.int64)
    padded_positions = np.zeros((*mask.shape, 3), dtype=np.float32)
    padded_numbers[mask] = numbers
    padded_positions[mask] = positions
    return Molecules(
        torch.from_numpy(padded_positions), torch.from_numpy(padded_numbers), torch.from_numpy(mask)
    )
