"""Molecular graphs from positions, and what chemists ask of a set of generated molecules.

Graphs follow EDM: bonds by the published length tables (``stability``), elements as they are. A molecule is
valid when RDKit can sanitize its graph; its name is the canonical SMILES, hydrogens written out, of its
largest piece. RDKit may add implicit hydrogens to make sense of a broken graph: validity alone says little,
so read it beside stability.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from elign.common.datasets import get_dataset
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.stability import bond_orders
from elign.common.storage import write_atomic

_BOND_TYPES = (Chem.BondType.ZERO, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
_MOLECULES_PER_CHUNK = 1024


@dataclass(frozen=True)
class Identity:
    """What RDKit makes of a molecule: SMILES of its largest piece (None: invalid), number of pieces."""

    smiles: str | None
    num_pieces: int


def build_graph(
    numbers: np.ndarray, positions: np.ndarray, orders: np.ndarray, *, limit_bonds_to_one: bool
) -> Chem.Mol:
    """An unsanitized RDKit molecule with one conformer.

    numbers: [n]. positions: [n, 3] in Å. orders: [n, n] bond orders as ``bond_orders`` gives them.
    """
    graph = Chem.RWMol()
    for z in numbers:
        graph.AddAtom(Chem.Atom(int(z)))
    for i, j in np.argwhere(np.triu(orders, 1)):
        graph.AddBond(int(i), int(j), _BOND_TYPES[1 if limit_bonds_to_one else orders[i, j]])
    conformer = Chem.Conformer(len(numbers))
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    graph.AddConformer(conformer, assignId=True)
    return graph.GetMol()


def molecular_graphs(molecules: Molecules, dataset: str = "qm9") -> list[Chem.Mol]:
    """Unsanitized graphs of all molecules; GEOM's with single bonds only, as EDM judges them."""
    limit = get_dataset(dataset).limit_bonds_to_one
    graphs = []
    for start in range(0, len(molecules), _MOLECULES_PER_CHUNK):
        chunk = molecules[start : start + _MOLECULES_PER_CHUNK]
        orders, mask = bond_orders(chunk, dataset).cpu().numpy(), chunk.node_mask.cpu().numpy()
        for i, (numbers, positions) in enumerate(chunk.arrays()):
            own = orders[i][mask[i]][:, mask[i]]
            graphs.append(build_graph(numbers, positions, own, limit_bonds_to_one=limit))
    return graphs


def identify(molecules: Molecules, dataset: str = "qm9") -> list[Identity]:
    """Canonical SMILES and number of pieces of each molecule; RDKit's complaints are not printed."""
    with BlockLogs():
        return [_identify(graph) for graph in molecular_graphs(molecules, dataset)]


def canonical_smiles(molecules: Molecules, dataset: str = "qm9") -> list[str | None]:
    """SMILES of the largest piece of each molecule, None where RDKit refuses the graph."""
    return [identity.smiles for identity in identify(molecules, dataset)]


def first_occurrences(smiles: Sequence[str | None]) -> np.ndarray:
    """[B] bool: valid, and no molecule before it has the same SMILES; their number is that of unique ones."""
    seen: set[str] = set()
    first = np.zeros(len(smiles), dtype=bool)
    for i, name in enumerate(smiles):
        if name is not None and name not in seen:
            first[i] = True
            seen.add(name)
    return first


def is_novel(smiles: Sequence[str | None], reference: frozenset[str]) -> np.ndarray:
    """[B] bool: valid and not among the reference SMILES."""
    return np.array([name is not None and name not in reference for name in smiles], dtype=bool)


def element_counts(molecules: Molecules) -> dict[int, int]:
    """Atomic number -> how many such atoms there are in all molecules together."""
    numbers = molecules.atomic_numbers[molecules.node_mask].cpu().numpy()
    found, counts = np.unique(numbers, return_counts=True)
    return {int(z): int(count) for z, count in zip(found, counts, strict=True)}


def write_reference_smiles(path: Path | str, smiles: Iterable[str | None]) -> int:
    """Write the distinct valid SMILES, sorted, one a line, gzipped (same input, same bytes).

    Returns how many there are.
    """
    names = sorted({name for name in smiles if name is not None})
    data = gzip.compress("".join(f"{name}\n" for name in names).encode(), mtime=0)
    write_atomic(path, lambda temporary: _write_bytes(temporary, data))
    return len(names)


def read_reference_smiles(path: Path | str) -> frozenset[str]:
    """The set that ``write_reference_smiles`` wrote; raises DataError when missing or damaged."""
    try:
        return frozenset(gzip.decompress(Path(path).read_bytes()).decode().split())
    except FileNotFoundError as error:
        raise DataError(f"there is no list of reference SMILES at {path}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a gzipped list of SMILES: {error}") from error


def _identify(graph: Chem.Mol) -> Identity:
    num_pieces = len(Chem.GetMolFrags(graph))
    try:
        Chem.SanitizeMol(graph)
        if num_pieces > 1:
            graph = max(Chem.GetMolFrags(graph, asMols=True), key=lambda piece: piece.GetNumAtoms())
    except ValueError:
        return Identity(None, num_pieces)
    return Identity(Chem.MolToSmiles(graph), num_pieces)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
