"""PoseBusters' plausibility checks of molecules, where it is installed (``pip install posebusters``).

Its quick ones: chemistry, connectedness, bond lengths and angles, clashes, flatness of rings and double
bonds; the energy ratio, which embeds each molecule fifty times, is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import rdkit
from rdkit.rdBase import BlockLogs

from elign.common.chemistry import molecular_graphs
from elign.common.molecules import Molecules


def is_installed() -> bool:
    return find_spec("posebusters") is not None


def passes_posebusters(molecules: Molecules, dataset: str, smiles: Sequence[str | None]) -> np.ndarray:
    """[B] bool: whether a molecule passes every check; smiles: B, None where invalid, which never passes."""
    from posebusters import PoseBusters

    valid = [i for i, name in enumerate(smiles) if name is not None]
    passed = np.zeros(len(molecules), dtype=bool)
    if valid:
        # PoseBusters leaves RDKit's log on the standard error of its last call, which may be closed
        rdkit.log_handler.stream = sys.stderr
        with BlockLogs():
            answers = PoseBusters(config="mol_fast").bust(molecular_graphs(molecules[valid], dataset))
        # a check that could not be made says None, which is no pass
        passed[valid] = (answers.to_numpy() == True).all(1)  # noqa: E712
    return passed
