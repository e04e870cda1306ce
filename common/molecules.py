"""``Molecules``: the one batched type that travels between rooms.

Dense and padded: a batch of B molecules has arrays of N atoms, the largest in the batch, and ``node_mask``
says which are real. Padding is zero everywhere. Files and other libraries: see ``molecule_io``.

    molecules = Molecules.from_lists([np.array([8, 1, 1])], [np.zeros((3, 3))])
    molecules.num_atoms          # tensor([3])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elign.common.compact_pickle import CompactPickle


@dataclass(frozen=True)
class Molecules(CompactPickle):
    """A batch of molecules.

    positions: [B, N, 3] in Å, float. atomic_numbers: [B, N], int64, 0 where padded. node_mask: [B, N], bool.
    """

    positions: Tensor
    atomic_numbers: Tensor
    node_mask: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.atomic_numbers.shape)
        if (
            len(shape) != 2
            or tuple(self.positions.shape) != (*shape, 3)
            or tuple(self.node_mask.shape) != shape
        ):
            raise ValueError(
                f"positions {tuple(self.positions.shape)}, atomic_numbers {shape} and node_mask "
                f"{tuple(self.node_mask.shape)} do not fit together; wanted [B, N, 3], [B, N], [B, N]"
            )

    def __len__(self) -> int:
        return self.atomic_numbers.shape[0]

    @property
    def num_atoms(self) -> Tensor:
        """[B] int64, the number of real atoms."""
        return self.node_mask.sum(1)

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Molecules:
        """The chosen molecules, padding unchanged."""
        if not isinstance(index, (slice, Tensor)):
            index = torch.as_tensor(index, dtype=torch.long)
        return Molecules(self.positions[index], self.atomic_numbers[index], self.node_mask[index])

    def to(self, device: torch.device | str) -> Molecules:
        return Molecules(self.positions.to(device), self.atomic_numbers.to(device), self.node_mask.to(device))

    def arrays(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each molecule without padding: (atomic numbers [n] int64, positions [n, 3] in Å)."""
        numbers, positions, mask = (
            a.cpu().numpy() for a in (self.atomic_numbers, self.positions, self.node_mask)
        )
        for i in range(len(self)):
            yield numbers[i][mask[i]], positions[i][mask[i]]

    @classmethod
    def from_lists(cls, atomic_numbers: Sequence[np.ndarray], positions: Sequence[np.ndarray]) -> Molecules:
        """From unpadded arrays, one pair a molecule; float32 positions."""
        if len(atomic_numbers) != len(positions):
            raise ValueError(f"{len(atomic_numbers)} lists of elements but {len(positions)} of positions")
        size = max((len(z) for z in atomic_numbers), default=0)
        numbers = np.zeros((len(positions), size), dtype=np.int64)
        padded = np.zeros((len(positions), size, 3), dtype=np.float32)
        for i, (z, x) in enumerate(zip(atomic_numbers, positions, strict=True)):
            numbers[i, : len(z)] = z
            padded[i, : len(z)] = x
        lengths = np.array([len(z) for z in atomic_numbers], dtype=np.int64)
        mask = np.arange(size)[None, :] < lengths[:, None]
        return cls(torch.from_numpy(padded), torch.from_numpy(numbers), torch.from_numpy(mask))

    @classmethod
    def cat(cls, batches: Sequence[Molecules]) -> Molecules:
        """One batch out of several, padded to the largest."""
        size = max((b.node_mask.shape[1] for b in batches), default=0)

        def pad(a: Tensor) -> Tensor:
            extra = a.new_zeros((a.shape[0], size - a.shape[1], *a.shape[2:]))
            return torch.cat([a, extra], dim=1)

        if not batches:
            return cls.from_lists([], [])
        return cls(
            torch.cat([pad(b.positions) for b in batches]),
            torch.cat([pad(b.atomic_numbers) for b in batches]),
            torch.cat([pad(b.node_mask) for b in batches]),
        )
