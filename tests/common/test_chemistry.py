"""Graphs, names and counts of molecules whose chemistry everybody knows."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common.chemistry import (
    canonical_smiles,
    element_counts,
    first_occurrences,
    identify,
    is_novel,
    read_reference_smiles,
    write_reference_smiles,
)
from elign.common.errors import DataError
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def test_smiles_of_known_molecules() -> None:
    smiles = canonical_smiles(_named("H2O", "C2H4", "HCN", "CH3OH"))
    assert smiles == ["[H]O[H]", "[H]C([H])=C([H])[H]", "[H]C#N", "[H]OC([H])([H])[H]"]


def test_smiles_do_not_depend_on_pose_or_order_of_atoms() -> None:
    ethanol = ase_molecule("CH3CH2OH")
    turned = ethanol.copy()
    turned.rotate(73, (1, 2, 3))
    turned.translate((5, -3, 2))
    shuffled = turned[np.random.default_rng(0).permutation(len(turned)).tolist()]
    assert len(set(canonical_smiles(from_ase([ethanol, turned, shuffled])))) == 1


def test_the_largest_piece_names_a_molecule_in_several() -> None:
    methane, water = ase_molecule("CH4"), ase_molecule("H2O")
    water.translate((8, 0, 0))
    (identity,) = identify(from_ase([methane + water]))
    assert identity.num_pieces == 2
    assert identity.smiles == "[H]C([H])([H])[H]"


def test_too_many_bonds_are_invalid_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    crowded = _named("CH4")
    crowded.positions.mul_(0.4)  # hydrogens bond to each other
    nothing = _named("CH4")
    nothing.positions[0, 0] = torch.nan
    both = identify(Molecules.cat([crowded, nothing]))
    assert both[0].smiles is None
    assert both[1].num_pieces == 5
    assert capfd.readouterr() == ("", "")


def test_geom_graphs_have_single_bonds_only_as_in_edm() -> None:
    ethene = _named("C2H4")
    assert canonical_smiles(ethene, "geom") == ["[H]C([H])C([H])[H]"]
    assert canonical_smiles(_named("PH3", "CH3Cl"), "geom") == ["[H]P([H])[H]", "[H]C([H])([H])Cl"]


def test_uniqueness_and_novelty_are_counted_over_valid_molecules() -> None:
    smiles = ["A", None, "B", "A", "C", None, "B"]
    assert first_occurrences(smiles).tolist() == [True, False, True, False, True, False, False]
    assert is_novel(smiles, frozenset({"A"})).tolist() == [False, False, True, False, True, False, True]


def test_element_counts() -> None:
    assert element_counts(_named("H2O", "CH4")) == {1: 6, 6: 1, 8: 1}


def test_reference_smiles_round_trip_and_are_reproducible(tmp_path: Path) -> None:
    path = tmp_path / "training_smiles.txt.gz"
    assert write_reference_smiles(path, ["[H]O[H]", None, "C", "C"]) == 2
    first = path.read_bytes()
    assert read_reference_smiles(path) == {"C", "[H]O[H]"}
    write_reference_smiles(path, ["C", "[H]O[H]"])
    assert path.read_bytes() == first
    assert gzip.decompress(first) == b"C\n[H]O[H]\n"


def test_damaged_reference_smiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no list of reference SMILES at .*absent"):
        read_reference_smiles(tmp_path / "absent")
    path = tmp_path / "a.gz"
    write_reference_smiles(path, ["C"])
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError, match=r"a\.gz is not a gzipped list"):
        read_reference_smiles(path)
