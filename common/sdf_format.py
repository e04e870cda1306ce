"""SDF through RDKit, with bonds where the molecule makes sense.

Bonds come from EDM's length tables and are written when RDKit accepts the graph; otherwise the entry has
atoms only, and a viewer draws its own. SDF holds four decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from elign.common.chemistry import build_graph
from elign.common.datasets import dataset_of
from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.common.stability import bond_orders
from elign.common.xyz_format import shared_properties

_LARGEST_COORDINATE = 9999.0
"""Beyond it the fixed columns of the format overflow, Å."""


def write_sdf(path: Path, molecules: Molecules, properties: Mapping[str, np.ndarray]) -> None:
    """One entry a molecule; raises DataError for coordinates that the format cannot hold."""
    with BlockLogs(), Chem.SDWriter(str(path)) as writer:
        writer.SetKekulize(False)
        for i, (numbers, positions) in enumerate(molecules.arrays()):
            if not (np.abs(positions) < _LARGEST_COORDINATE).all():
                raise DataError(
                    f"molecule {i} has a coordinate that is not finite or beyond {_LARGEST_COORDINATE:g} Å, "
                    "which SDF cannot hold; write .extxyz or .parquet instead"
                )
            graph = _with_bonds_if_valid(molecules[i : i + 1], numbers, positions)
            for name, values in properties.items():
                graph.SetProp(name, str(values[i]))
            writer.write(graph)


def read_sdf(path: Path) -> tuple[Molecules, dict[str, np.ndarray]]:
    """Elements and positions of each entry (bonds are passed over) and the properties they all have."""
    numbers, positions, rows = [], [], []
    with BlockLogs():
        for i, graph in enumerate(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)):
            if graph is None or not graph.GetNumConformers():
                raise DataError(f"{path}: entry {i} cannot be read as a molecule")
            conformer = graph.GetConformer()
            if not conformer.Is3D():
                raise DataError(f"{path}: entry {i} is a flat drawing; 3D coordinates are needed")
            numbers.append(np.array([atom.GetAtomicNum() for atom in graph.GetAtoms()], dtype=np.int64))
            positions.append(conformer.GetPositions())
            rows.append({name: _value(graph.GetProp(name)) for name in graph.GetPropNames()})
    return Molecules.from_lists(numbers, positions), shared_properties(rows)


def _with_bonds_if_valid(molecule: Molecules, numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    mask = molecule.node_mask[0].cpu().numpy()
    orders = bond_orders(molecule, dataset_of(molecule))[0].cpu().numpy()[mask][:, mask]
    graph = build_graph(numbers, positions, orders, limit_bonds_to_one=False)
    try:
        Chem.SanitizeMol(Chem.Mol(graph))
    except ValueError:
        graph = build_graph(numbers, positions, np.zeros_like(orders), limit_bonds_to_one=False)
    graph.UpdatePropertyCache(strict=False)
    return graph


def _value(text: str) -> float | int | bool | str:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
