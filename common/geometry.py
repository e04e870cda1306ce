"""Distances and connectivity of whole batches of molecules, in plain torch.

Two atoms are connected when they are closer than 1.3 times the sum of their covalent radii; the pieces of a
molecule are the connected components of that graph. Elign uses it to tell a molecule from a heap of
fragments, not to assign bonds (see ``stability`` for those).

    largest_piece(molecules)     # [B, N] bool: the atoms of each molecule's largest piece
"""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from torch import Tensor

from elign.common.molecules import Molecules

CONNECTION_FACTOR = 1.3
_RADII = torch.tensor(covalent_radii, dtype=torch.float32)


def pairwise_distances(molecules: Molecules) -> Tensor:
    """[B, N, N] distances in Å; inf on the diagonal and where an atom is padding, NaN for NaN coordinates."""
    difference = molecules.positions.unsqueeze(2) - molecules.positions.unsqueeze(1)
    distances: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return distances.masked_fill(~_real_pairs(molecules), torch.inf)


def minimum_distance(molecules: Molecules) -> Tensor:
    """[B] smallest distance in Å; inf for fewer than two atoms, NaN if a coordinate is NaN."""
    if molecules.node_mask.shape[1] == 0:
        return molecules.positions.new_full((len(molecules),), torch.inf)
    return pairwise_distances(molecules).amin(dim=(1, 2))


def connected(molecules: Molecules) -> Tensor:
    """[B, N, N] bool, symmetric: which two different atoms are close enough to be connected."""
    radii = _RADII.to(molecules.positions)[molecules.atomic_numbers.clamp(0, len(_RADII) - 1)]
    reach = CONNECTION_FACTOR * (radii.unsqueeze(2) + radii.unsqueeze(1))
    return pairwise_distances(molecules) < reach


def piece_labels(molecules: Molecules) -> Tensor:
    """[B, N] int64: the lowest index of an atom of the same piece; -1 where padded."""
    adjacency = connected(molecules)
    size = adjacency.shape[1]
    labels = torch.arange(size, device=adjacency.device).expand(len(molecules), size)
    while size:
        neighbours = torch.where(adjacency, labels.unsqueeze(1), size).amin(2)
        lowered = torch.minimum(labels, neighbours)
        lowered = lowered.gather(1, lowered)  # jump along the labels: chains close in logarithmic time
        if torch.equal(lowered, labels):
            break
        labels = lowered
    return labels.masked_fill(~molecules.node_mask, -1)


def num_pieces(molecules: Molecules) -> Tensor:
    """[B] int64: how many pieces each molecule is in; 0 for one without atoms."""
    labels = piece_labels(molecules)
    own_index = torch.arange(labels.shape[1], device=labels.device)
    return (labels == own_index).sum(1)


def largest_piece(molecules: Molecules) -> Tensor:
    """[B, N] bool: the atoms of the largest piece (of equally large ones, the one with the lowest index)."""
    labels = piece_labels(molecules)
    if labels.shape[1] == 0:
        return molecules.node_mask
    same = (labels.unsqueeze(1) == labels.unsqueeze(2)) & _real_atoms(molecules)
    sizes = same.sum(2) * molecules.node_mask
    root = labels.gather(1, sizes.argmax(1, keepdim=True))
    return (labels == root) & molecules.node_mask


def _real_atoms(molecules: Molecules) -> Tensor:
    return molecules.node_mask.unsqueeze(1) & molecules.node_mask.unsqueeze(2)


def _real_pairs(molecules: Molecules) -> Tensor:
    size = molecules.node_mask.shape[1]
    different = ~torch.eye(size, dtype=torch.bool, device=molecules.node_mask.device)
    return _real_atoms(molecules) & different


def aligned_rmsd(first: Molecules, second: Molecules) -> Tensor:
    """[B] Å: root mean square distance of corresponding atoms, second turned and moved to fit best (Kabsch).

    A mirror image is not turned into place. NaN where coordinates are not finite.
    """
    mask = first.node_mask[..., None].double()
    count = mask.sum(1).clamp(min=1)
    a, b = (torch.nan_to_num(m.positions.double()) * mask for m in (first, second))
    a, b = (m - m.sum(1, keepdim=True) / count[:, None] * mask for m in (a, b))
    u, singular, v = torch.linalg.svd(a.transpose(1, 2) @ b)
    handed = torch.sign(torch.det(u @ v))
    overlap = singular[:, 0] + singular[:, 1] + handed * singular[:, 2]
    squared = (a.square().sum((1, 2)) + b.square().sum((1, 2)) - 2 * overlap) / count[:, 0]
    finite = torch.isfinite(first.positions).flatten(1).all(1) & torch.isfinite(second.positions).flatten(
        1
    ).all(1)
    rmsd: Tensor = squared.clamp(min=0).sqrt().masked_fill(~finite, torch.nan)
    return rmsd
