"""What is written is what is read, in every format, and bad files are named with what is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ase.build import molecule as ase_molecule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from elign.common.errors import DataError, StorageError
from elign.common.molecule_io import (
    from_ase,
    read_molecules,
    read_molecules_with_properties,
    to_ase,
    write_molecules,
)
from elign.common.molecule_table import from_arrow, to_arrow
from elign.common.molecules import Molecules

SUFFIXES = (".parquet", ".extxyz", ".xyz", ".sdf")


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


@st.composite
def _batches(draw: st.DrawFn) -> Molecules:
    sizes = draw(st.lists(st.integers(1, 181), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = [rng.integers(1, 119, size) for size in sizes]
    return Molecules.from_lists(numbers, [rng.normal(scale=20.0, size=(size, 3)) for size in sizes])


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(molecules=_batches())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_any_sizes_and_elements(tmp_path: Path, suffix: str, molecules: Molecules) -> None:
    path = tmp_path / f"molecules{suffix}"
    write_molecules(path, molecules)
    back = read_molecules(path)
    assert torch.equal(back.node_mask, molecules.node_mask)
    assert torch.equal(back.atomic_numbers, molecules.atomic_numbers)
    # SDF holds four decimals, which are then rounded to float32 once more
    rtol, atol = (torch.finfo(torch.float32).eps, 5e-5) if suffix == ".sdf" else (0.0, 0.0)
    assert torch.allclose(back.positions, molecules.positions, rtol=rtol, atol=atol)


@given(molecules=_batches())
@settings(max_examples=15, deadline=None)
def test_round_trip_over_ase_and_arrow(molecules: Molecules) -> None:
    table, _ = from_arrow(to_arrow(molecules))
    for back in (from_ase(to_ase(molecules)), table):
        assert torch.equal(back.positions, molecules.positions)
        assert torch.equal(back.atomic_numbers, molecules.atomic_numbers)
        assert torch.equal(back.node_mask, molecules.node_mask)


@pytest.mark.parametrize("suffix", [".parquet", ".extxyz", ".sdf"])
def test_properties_travel_with_their_kinds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"molecules{suffix}"
    properties = {
        "rms_force": torch.tensor([0.25, torch.nan], dtype=torch.float64),
        "stable": np.array([True, False]),
        "count": [3, 7],
        "failure": ["none at all", 'said "no"'],
    }
    write_molecules(path, _named("H2O", "CH4"), properties)
    _, back = read_molecules_with_properties(path)
    assert set(back) == set(properties)
    assert np.array_equal(back["rms_force"], [0.25, np.nan], equal_nan=True)
    assert back["stable"].dtype == bool
    assert back["stable"].tolist() == [True, False]
    assert back["count"].tolist() == [3, 7]
    assert back["failure"].tolist() == properties["failure"]


def test_non_finite_coordinates_survive_where_the_format_allows(tmp_path: Path) -> None:
    molecules = _named("H2O", "CH4")
    molecules.positions[0, 1, 2] = torch.nan
    for suffix in (".parquet", ".extxyz", ".xyz"):
        write_molecules(tmp_path / f"a{suffix}", molecules)
        assert torch.equal(
            read_molecules(tmp_path / f"a{suffix}").positions.isnan(), molecules.positions.isnan()
        )
    with pytest.raises(DataError, match=r"molecule 0 .* SDF cannot hold; write .extxyz"):
        write_molecules(tmp_path / "a.sdf", molecules)


def test_sdf_has_the_bonds_of_molecules_that_make_sense(tmp_path: Path) -> None:
    crowded = _named("CH4")
    crowded.positions.mul_(0.4)
    write_molecules(tmp_path / "a.sdf", Molecules.cat([_named("C2H4"), crowded]))
    ethene, broken = list(Chem.SDMolSupplier(str(tmp_path / "a.sdf"), removeHs=False))
    assert Chem.MolToSmiles(Chem.RemoveHs(ethene)) == "C=C"
    assert broken.GetNumBonds() == 0


def test_parquet_schema_is_the_documented_one(tmp_path: Path) -> None:
    write_molecules(tmp_path / "a.parquet", _named("H2O"), {"energy": [1.5]})
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.field("atomic_numbers").type.value_type == pa.uint8()
    assert schema.field("positions").type.value_type == pa.float32()
    assert schema.field("energy").type == pa.float64()


def test_npz_in_the_usual_layout(tmp_path: Path) -> None:
    charges = np.array([[8, 1, 1, 0], [6, 8, 0, 0]], dtype=np.int8)
    positions = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    np.savez(tmp_path / "a.npz", num_atoms=[3, 2], charges=charges, positions=positions, gap=[0.1, 0.2])
    molecules, properties = read_molecules_with_properties(tmp_path / "a.npz")
    assert molecules.num_atoms.tolist() == [3, 2]
    assert molecules.positions[1, 1].tolist() == positions[1, 1].tolist()
    assert properties["gap"].tolist() == [0.1, 0.2]


def test_foreign_extended_xyz_is_understood(tmp_path: Path) -> None:
    text = '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=id:I:1:pos:R:3:forces:R:3:species:S:1 energy=-1.5\n'
    (tmp_path / "a.extxyz").write_text(text + "1 0 0 0 9 9 9 H\n2 0 0 .74 9 9 9 h\n\n")
    molecules, properties = read_molecules_with_properties(tmp_path / "a.extxyz")
    assert molecules.atomic_numbers.tolist() == [[1, 1]]
    assert molecules.positions[0, 1].tolist() == pytest.approx([0, 0, 0.74])
    assert properties["energy"].tolist() == [-1.5]


BAD_FILES = {
    "empty.xyz": (b"", "holds no molecule"),
    "cut.xyz": (b"3\n\nH 0 0 0\n", "line 1: 3 atoms announced"),
    "words.xyz": (b"1\n\nH 0 zero 0\n", "line 3: expected an element and three coordinates"),
    "element.xyz": (b"1\n\nQq 0 0 0\n", "line 3: expected an element"),
    "ghost.xyz": (b"1\n\n0 0 0 0\n", "atom of number 0"),
    "binary.extxyz": (b"\xff\xfe\x00", "not a text file"),
    "nothing.extxyz": (b"0\n\n", "molecule 0 has no atoms"),
    "text.parquet": (b"not parquet", "not a readable Parquet"),
    "text.npz": (b"not npz", "not a readable .npz"),
    "text.sdf": (b"hello\n", "cannot be read|holds no molecule"),
    "a.pdb": (b"", "suffix must be one of"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_molecules(tmp_path / name)
    assert name in str(error.value)


def test_missing_files_and_foreign_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_molecules(tmp_path / "absent.xyz")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'atomic_numbers'; it has a"):
        read_molecules(tmp_path / "a.parquet")
    pq.write_table(pa.table({"atomic_numbers": [[1, 1]], "positions": [[0.0] * 5]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="row 0 has 2 atoms but 5 coordinates"):
        read_molecules(tmp_path / "b.parquet")
    np.savez(tmp_path / "c.npz", charges=[[1]])
    with pytest.raises(DataError, match="no num_atoms, positions; it has charges"):
        read_molecules(tmp_path / "c.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sdf"
    write_molecules(path, _named("H2O"))
    before = path.read_bytes()
    bad = _named("H2O")
    bad.positions[0, 0, 0] = torch.inf
    with pytest.raises(DataError):
        write_molecules(path, bad)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StorageError):
        write_molecules(path / "inside.xyz", _named("H2O"))


def test_wrong_properties_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'gap' has shape"):
        write_molecules(tmp_path / "a.parquet", _named("H2O"), {"gap": [1.0, 2.0]})
    with pytest.raises(DataError, match="cannot be called 'positions'"):
        write_molecules(tmp_path / "a.parquet", _named("H2O"), {"positions": [1.0]})
