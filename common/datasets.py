"""What is known beforehand about the two data sets that EDM policies are trained on: QM9 and GEOM-Drugs.

Element order, size histograms (number of atoms -> molecules in EDM's training split) and whether the state
carries a charge column are those of the published EDM (arXiv 2203.17003), so public checkpoints fit.

    get_dataset("qm9").atomic_numbers        # (1, 6, 7, 8, 9)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from elign.common.errors import ConfigError
from elign.common.molecules import Molecules


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as a policy sees it.

    atomic_numbers: element of each one-hot column, in that order. includes_charges: whether the state has a
    further column for the nuclear charge. size_histogram: number of atoms -> count. max_num_atoms: the
    largest size. limit_bonds_to_one: whether molecular graphs (not stability) treat every bond as single, as
    EDM does for GEOM.
    """

    name: str
    atomic_numbers: tuple[int, ...]
    includes_charges: bool
    size_histogram: Mapping[int, int]
    max_num_atoms: int
    limit_bonds_to_one: bool


def _dataset(
    name: str, atomic_numbers: tuple[int, ...], *, includes_charges: bool, limit_bonds_to_one: bool
) -> DatasetInfo:
    text = files("elign.common").joinpath("assets", "size_histograms.json").read_text(encoding="utf-8")
    histogram = {int(size): int(count) for size, count in json.loads(text)[name].items()}
    return DatasetInfo(
        name,
        atomic_numbers,
        includes_charges,
        MappingProxyType(histogram),
        max(histogram),
        limit_bonds_to_one,
    )


@cache
def _datasets() -> Mapping[str, DatasetInfo]:
    geom_elements = (1, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 33, 35, 53, 80, 83)
    known = (
        _dataset("qm9", (1, 6, 7, 8, 9), includes_charges=True, limit_bonds_to_one=False),
        _dataset("geom", geom_elements, includes_charges=False, limit_bonds_to_one=True),
    )
    return MappingProxyType({dataset.name: dataset for dataset in known})


def dataset_names() -> tuple[str, ...]:
    """The names that ``get_dataset`` knows."""
    return tuple(_datasets())


def get_dataset(name: str) -> DatasetInfo:
    """The data set called ``name``; raises ConfigError, listing the known ones, for any other."""
    if name not in _datasets():
        raise ConfigError(f"unknown data set {name!r}; known: {', '.join(dataset_names())}")
    return _datasets()[name]


def dataset_of(molecules: Molecules) -> str:
    """The name of the smallest known data set that has all elements of ``molecules``; geom where none has."""
    present = set(molecules.atomic_numbers[molecules.node_mask].tolist())
    return "qm9" if present <= set(get_dataset("qm9").atomic_numbers) else "geom"
