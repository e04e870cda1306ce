"""How far a set of molecules is from the data in bond lengths, angles, torsions, elements and sizes.

Geometry by Wasserstein distances (how far, on average, values must be moved), separately for each kind of
bond, angle or torsion and then averaged as frequent as the kinds are in the data; mixes by Jensen-Shannon
divergences, 0 (equal) to 1 (nothing in common). The data count as known exactly: intervals are those of the
sampled molecules. A kind that the sample lacks is left out of the average; the element mix shows that.

    reference = Reference.of(data, "qm9")
    bootstrap_set(reference.statistics(molecules)["bond_lengths"])       # Å
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from elign.common.molecules import Molecules
from elign.common.statistics import SetStatistic
from elign.learner.geometry_terms import (
    Terms,
    angle_label,
    bond_angles,
    bond_label,
    bond_lengths,
    torsion_label,
    torsions,
)

NUM_KINDS = 12


@dataclass(frozen=True)
class Family:
    """Bond lengths, angles or torsions: how to get them, and the grid on which they are counted."""

    terms: Callable[[Molecules, str], Terms]
    label: Callable[[int], str]
    unit: str
    low: float
    high: float
    bins: int

    @property
    def width(self) -> float:
        return (self.high - self.low) / self.bins


FAMILIES: Mapping[str, Family] = {
    "bond_lengths": Family(bond_lengths, bond_label, "Å", 0.5, 3.0, 500),
    "bond_angles": Family(bond_angles, angle_label, "°", 0.0, 180.0, 180),
    "torsions": Family(torsions, torsion_label, "°", 0.0, 180.0, 60),
}


@dataclass(frozen=True)
class Histograms:
    """kinds: K codes, the most frequent first. weights: [K] shares. density: [K, bins] sums to 1 each."""

    kinds: np.ndarray
    weights: np.ndarray
    density: np.ndarray


@dataclass(frozen=True)
class Reference:
    """The data: histograms by family; elements and sizes: value -> share."""

    dataset: str
    histograms: Mapping[str, Histograms]
    elements: Mapping[int, float]
    sizes: Mapping[int, float]

    @classmethod
    def of(cls, data: Molecules, dataset: str) -> Reference:
        histograms = {name: _histograms(family, data, dataset) for name, family in FAMILIES.items()}
        numbers = data.atomic_numbers[data.node_mask].cpu().numpy()
        return cls(dataset, histograms, _shares(numbers), _shares(data.num_atoms.cpu().numpy()))

    def statistics(self, molecules: Molecules) -> dict[str, SetStatistic]:
        """Distances of molecules from the data, by the names of ``FAMILIES``, ``elements`` and ``sizes``."""
        found = {
            name: self._distance(name, molecules) for name in FAMILIES if len(self.histograms[name].kinds)
        }
        numbers, sizes = molecules.atomic_numbers.cpu().numpy(), molecules.num_atoms.cpu().numpy()
        mask = molecules.node_mask.cpu().numpy()
        found["elements"] = _mix_divergence(np.where(mask, numbers, 0), self.elements)
        found["sizes"] = _mix_divergence(sizes[:, None], self.sizes)
        return found

    def density(self, name: str, molecules: Molecules) -> np.ndarray:
        """[K, bins] of the molecules, each row summing to 1 (0 where the kind is lacking)."""
        family, own = FAMILIES[name], self.histograms[name]
        counts = np.asarray(_counted(family, own.kinds, molecules, self.dataset).sum(0)).reshape(
            -1, family.bins
        )
        return _normalized(counts)

    def _distance(self, name: str, molecules: Molecules) -> SetStatistic:
        family, own = FAMILIES[name], self.histograms[name]
        counted = _counted(family, own.kinds, molecules, self.dataset)
        cumulated = own.density.cumsum(1)

        def evaluate(counts: np.ndarray) -> np.ndarray:
            drawn = (counted.T @ counts.T).T.reshape(len(counts), -1, family.bins)
            moved = np.abs(_normalized(drawn).cumsum(2) - cumulated).sum(2) * family.width
            weights = own.weights * (drawn.sum(2) > 0)
            total = weights.sum(1)
            averages: np.ndarray = np.divide(
                (moved * weights).sum(1), total, out=np.full(len(counts), np.nan), where=total > 0
            )
            return averages

        return SetStatistic(evaluate, len(molecules), int((counted.getnnz(1) > 0).sum()))


def js_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits over the last axis of distributions that sum to 1."""
    middle = (first + second) / 2

    def relative_entropy(p: np.ndarray) -> np.ndarray:
        ratio = np.divide(p, middle, out=np.ones_like(middle), where=p > 0)
        return np.asarray((p * np.log2(ratio)).sum(-1))

    divergence: np.ndarray = (relative_entropy(first) + relative_entropy(second)) / 2
    return divergence


def _histograms(family: Family, data: Molecules, dataset: str) -> Histograms:
    terms = family.terms(data, dataset)
    kinds, frequency = np.unique(terms.kinds, return_counts=True)
    order = np.argsort(-frequency, kind="stable")[:NUM_KINDS]
    kinds, frequency = kinds[order], frequency[order]
    counts = np.asarray(_count(family, kinds, terms, len(data)).sum(0)).reshape(-1, family.bins)
    return Histograms(kinds, frequency / max(frequency.sum(), 1), _normalized(counts))


def _counted(family: Family, kinds: np.ndarray, molecules: Molecules, dataset: str) -> csr_matrix:
    return _count(family, kinds, family.terms(molecules, dataset), len(molecules))


def _count(family: Family, kinds: np.ndarray, terms: Terms, size: int) -> csr_matrix:
    """[B, K bins] how many terms of each molecule are in each bin of each kind; other kinds are left out."""
    order = np.argsort(kinds)
    place = np.searchsorted(kinds[order], terms.kinds).clip(max=max(len(kinds) - 1, 0))
    known = kinds[order][place] == terms.kinds if len(kinds) else np.zeros(len(terms.kinds), dtype=bool)
    kind = order[place[known]] if len(kinds) else np.zeros(0, dtype=np.int64)
    bins = ((terms.values[known] - family.low) / family.width).astype(np.int64).clip(0, family.bins - 1)
    ones = np.ones(len(bins))
    shape = (size, len(kinds) * family.bins)
    return csr_matrix((ones, (terms.molecule[known], kind * family.bins + bins)), shape=shape)


def _mix_divergence(values: np.ndarray, reference: Mapping[int, float]) -> SetStatistic:
    """values: [B, M] what each molecule has, 0 for nothing."""
    names = sorted({*reference, *np.unique(values).tolist()} - {0})
    own = np.stack([(values == name).sum(1) for name in names], axis=1).astype(np.float64)
    wanted = np.array([reference.get(name, 0.0) for name in names])

    def evaluate(counts: np.ndarray) -> np.ndarray:
        drawn = counts @ own
        divergence = js_divergence(_normalized(drawn), wanted)
        return np.where(drawn.sum(-1) > 0, divergence, np.nan)

    return SetStatistic(evaluate, len(values), int((own.sum(1) > 0).sum()))


def _shares(values: np.ndarray) -> dict[int, float]:
    names, counts = np.unique(values, return_counts=True)
    return {int(name): float(count) / len(values) for name, count in zip(names, counts, strict=True)}


def _normalized(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(-1, keepdims=True)
    shares: np.ndarray = counts / np.where(total > 0, total, 1)
    return shares
