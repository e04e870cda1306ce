"""Which atoms are stable by EDM's published rule, for whole batches and without a loop over molecules.

Bond orders follow from distances (``bond_tables``); an atom is stable when its orders add up to an allowed
valence, a molecule when all its atoms are. The numbers are exactly those of the published evaluation.

    is_stable(molecules, "qm9").float().mean()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import torch
from ase.data import atomic_numbers as number_of
from torch import Tensor

from elign.common.bond_tables import DOUBLE, MARGINS, SINGLE, TRIPLE, VALENCES
from elign.common.datasets import get_dataset
from elign.common.molecules import Molecules

_NUM_ELEMENTS = 119
_MAX_VALENCE = 7
"""Sums of bond orders are cut here; no element allows as many."""
_SOFTNESS_PM = 2.5
_PAIRS_PER_CHUNK = 1 << 20


def bond_orders(molecules: Molecules, dataset: str = "qm9") -> Tensor:
    """[B, N, N] int64: 0 (none) to 3 (triple), symmetric, 0 on the diagonal and where padded.

    Elements outside the data set, and atoms without finite coordinates, have no bonds. Raises ConfigError for
    an unknown data set.
    """
    chunks = [_chunk_bond_orders(chunk, dataset) for chunk in _chunks(molecules)]
    return torch.cat(chunks).long()


def stable_atom_mask(molecules: Molecules, dataset: str = "qm9") -> Tensor:
    """[B, N] bool: the real atoms whose bond orders add up to an allowed valence."""
    allowed = _allowed_valences(dataset).to(molecules.positions.device)
    masks = []
    for chunk in _chunks(molecules):
        valence = _chunk_bond_orders(chunk, dataset).sum(-1).clamp(max=_MAX_VALENCE)
        masks.append(allowed[_element_index(chunk), valence] & chunk.node_mask)
    return torch.cat(masks)


def stable_atoms(molecules: Molecules, dataset: str = "qm9") -> Tensor:
    """[B] int64: the number of stable atoms."""
    return stable_atom_mask(molecules, dataset).sum(1)


def is_stable(molecules: Molecules, dataset: str = "qm9") -> Tensor:
    """[B] bool: every atom is stable (never true of a molecule without atoms)."""
    return (stable_atoms(molecules, dataset) == molecules.num_atoms) & (molecules.num_atoms > 0)


def valence_error(molecules: Molecules, dataset: str = "qm9", *, smooth: bool) -> Tensor:
    """[B] float: how far an atom's bond orders add up from its nearest allowed valence, mean over the atoms.

    Counts both missing bonds and surplus ones. smooth: a bond order is a sum of sigmoids of the distance
    around EDM's limits (2.5 pm wide), so that moving an atom a little changes the error a little; else it is
    the whole number by which stability is judged. NaN for an atom without finite coordinates.
    """
    allowed = _allowed_valences(dataset).to(molecules.positions.device)
    valences = torch.arange(_MAX_VALENCE + 1, device=allowed.device)
    errors = []
    for chunk in _chunks(molecules):
        orders = _chunk_smooth_orders(chunk, dataset) if smooth else _chunk_bond_orders(chunk, dataset)
        distance = (orders.sum(-1).float().unsqueeze(-1) - valences).abs()
        nearest = distance.masked_fill(~allowed[_element_index(chunk)], torch.inf).amin(-1)
        # an element without any allowed valence is as wrong as an atom can be
        nearest = nearest.clamp(max=_MAX_VALENCE).masked_fill(~chunk.node_mask, 0.0)
        finite = torch.isfinite(chunk.positions).all(-1)
        nearest = nearest.masked_fill(~finite & chunk.node_mask, torch.nan)
        errors.append(nearest.sum(1) / chunk.num_atoms.clamp(min=1))
    return torch.cat(errors)


def _chunks(molecules: Molecules) -> Iterator[Molecules]:
    """Slices whose pair tensors stay within a few tens of MB; at least one, even when empty."""
    num_nodes = max(molecules.node_mask.shape[1], 1)
    step = max(_PAIRS_PER_CHUNK // num_nodes**2, 1)
    for start in range(0, max(len(molecules), 1), step):
        yield molecules[start : start + step]


def _chunk_bond_orders(molecules: Molecules, dataset: str) -> Tensor:
    """[B, N, N] uint8 bond orders of a chunk."""
    picometres, pair, within = _pairs(molecules)
    orders = torch.zeros_like(picometres, dtype=torch.uint8)
    for limit in _length_limits(dataset).to(picometres.device):
        # a double bond must also be within the single one's limit, and so on
        within = within & (picometres < limit[pair])
        orders += within
    return orders


def _chunk_smooth_orders(molecules: Molecules, dataset: str) -> Tensor:
    """[B, N, N] float32: as ``_chunk_bond_orders``, each step a sigmoid."""
    picometres, pair, real = _pairs(molecules)
    orders, within = torch.zeros_like(picometres), real.float()
    for limit in _length_limits(dataset).to(picometres.device):
        within = within * torch.sigmoid((limit[pair] - picometres.nan_to_num(torch.inf)) / _SOFTNESS_PM)
        orders = orders + within
    return orders


def _pairs(molecules: Molecules) -> tuple[Tensor, Tensor, Tensor]:
    """[B, N, N] each: distances in pm, index into the length limits, and whether both atoms are real."""
    x = molecules.positions.float()
    squared = torch.zeros((), device=x.device)
    for axis in range(3):  # one axis at a time: no [B, N, N, 3] in memory
        squared = squared + (x[:, :, None, axis] - x[:, None, :, axis]).square()
    element = _element_index(molecules)
    pair = element[:, :, None] * _NUM_ELEMENTS + element[:, None, :]
    real = molecules.node_mask[:, :, None] & molecules.node_mask[:, None, :]
    real = real & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return squared.sqrt() * 100, pair, real


def _element_index(molecules: Molecules) -> Tensor:
    """[B, N] atomic numbers, 0 (no element) where they name none."""
    numbers = molecules.atomic_numbers
    return torch.where((numbers > 0) & (numbers < _NUM_ELEMENTS), numbers, 0)


@cache
def _length_limits(dataset: str) -> Tensor:
    """[3, elements²] distance in pm below which a pair is single, double, triple; -inf where it never is."""
    known = set(get_dataset(dataset).atomic_numbers)
    limits = torch.full((3, _NUM_ELEMENTS, _NUM_ELEMENTS), -torch.inf)
    tables: tuple[Mapping[str, Mapping[str, int]], ...] = (SINGLE, DOUBLE, TRIPLE)
    for order, (table, margin) in enumerate(zip(tables, MARGINS, strict=True)):
        for first, row in table.items():
            for second, length in row.items():
                i, j = number_of[first], number_of[second]
                if i in known and j in known:
                    limits[order, i, j] = limits[order, j, i] = length + margin
    return limits.flatten(1)


@cache
def _allowed_valences(dataset: str) -> Tensor:
    """[elements, valence] bool."""
    known = set(get_dataset(dataset).atomic_numbers)
    allowed = torch.zeros(_NUM_ELEMENTS, _MAX_VALENCE + 1, dtype=torch.bool)
    for symbol, valences in VALENCES.items():
        if number_of[symbol] in known:
            allowed[number_of[symbol], list(valences)] = True
    return allowed
