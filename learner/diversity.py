"""How different the molecules of a set are from each other, by RDKit's Morgan fingerprints.

bootstrap_set(internal_diversity(smiles))       # 1 - mean Tanimoto similarity of two molecules
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.rdBase import BlockLogs

from elign.common.statistics import Sample, SetStatistic

_RADIUS, _BITS = 2, 2048
MAX_COMPARED = 2000
"""Valid molecules that are compared, the first ones: the table of similarities grows with their square."""


def internal_diversity(smiles: Sequence[str | None]) -> SetStatistic:
    """1 - the mean Tanimoto similarity of two valid molecules (B SMILES, None where invalid)."""
    valid = np.array([i for i, name in enumerate(smiles) if name is not None][:MAX_COMPARED], dtype=np.int64)
    similarity = tanimoto(fingerprints([str(smiles[i]) for i in valid]))

    def evaluate(counts: np.ndarray) -> np.ndarray:
        own = counts[:, valid].astype(np.float64)
        # a molecule drawn twice is no pair: it says nothing about how alike two samples are
        pairs = own.sum(1) ** 2 - (own**2).sum(1)
        alike = ((own @ similarity) * own).sum(1) - (own**2) @ np.diagonal(similarity)
        diversity: np.ndarray = 1.0 - np.divide(alike, pairs, out=np.full(len(own), np.nan), where=pairs > 0)
        return diversity

    return SetStatistic(evaluate, len(smiles), len(valid))


def most_frequent(smiles: Sequence[str | None]) -> tuple[str | None, Sample]:
    """The valid molecule that occurs most often, and [B] whether a molecule is it (weight: valid)."""
    counts = Counter(name for name in smiles if name is not None)
    name = counts.most_common(1)[0][0] if counts else None
    valid = np.array([s is not None for s in smiles], dtype=bool)
    return name, Sample(np.array([s is not None and s == name for s in smiles]), valid)


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """[V, bits] float32 zeros and ones; SMILES with explicit hydrogens count as without."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    found = np.zeros((len(smiles), _BITS), dtype=np.float32)
    with BlockLogs():
        for row, name in zip(found, smiles, strict=True):
            row[:] = generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(name))
    return found


def tanimoto(bits: np.ndarray) -> np.ndarray:
    """[V, V] similarities of fingerprints [V, bits]; two empty ones are alike."""
    common = bits @ bits.T
    own = bits.sum(1)
    union = own[:, None] + own[None, :] - common
    similarity: np.ndarray = np.divide(common, union, out=np.ones_like(common), where=union > 0)
    return similarity.astype(np.float64)
