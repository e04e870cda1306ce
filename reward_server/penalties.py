"""What is taken off a sample's stability reward before it is normalized: wrong valences, and molecules that
are invalid, alike or known. Each is off unless its setting is positive.

The chemistry is judged as in an evaluation: bonds by EDM's tables, names by RDKit's canonical SMILES of the
largest piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from elign.common.chemistry import canonical_smiles
from elign.common.config import RewardSettings
from elign.common.molecules import Molecules
from elign.common.stability import valence_error


def penalties(
    molecules: Molecules, settings: RewardSettings, dataset: str, known_smiles: frozenset[str]
) -> Tensor:
    """[K] float, not negative: each sample's penalties together; NaN without finite coordinates."""
    total = torch.zeros(len(molecules))
    if settings.valence_penalty > 0:
        error = valence_error(molecules, dataset, smooth=settings.valence_form == "smooth")
        total = total + settings.valence_penalty * error
    if settings.invalid_penalty > 0 or settings.duplicate_penalty > 0 or settings.known_penalty > 0:
        smiles = canonical_smiles(molecules, dataset)
        total = total + settings.invalid_penalty * torch.tensor([float(name is None) for name in smiles])
        total = total + settings.duplicate_penalty * duplicate_share(smiles)
        total = total + settings.known_penalty * torch.tensor(
            [float(name in known_smiles) for name in smiles]
        )
    return total


def duplicate_share(smiles: Sequence[str | None]) -> Tensor:
    """[K] 1 - 1/n for a molecule that occurs n times in its group; 0 for an invalid one.

    All of the alike share the blame, for none of them is the original.
    """
    counts = Counter(name for name in smiles if name is not None)
    return torch.tensor([0.0 if name is None else 1 - 1 / counts[name] for name in smiles])
