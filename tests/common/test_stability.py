"""Stability equals the published evaluation, and does what the rule says in cases one can draw by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common import bond_tables, stability
from elign.common.molecules import Molecules
from elign.common.stability import bond_orders, is_stable, stable_atom_mask, stable_atoms

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "stability_parity.npz"


def _named(*names: str) -> Molecules:
    atoms = [ase_molecule(name) for name in names]
    return Molecules.from_lists([a.numbers for a in atoms], [a.positions for a in atoms])


@pytest.mark.skipif(not PARITY.exists(), reason="no ../shared/data/stability_parity.npz")
def test_equals_the_published_numbers_for_every_molecule() -> None:
    data = np.load(PARITY)
    pairs = [
        (z[:n], x[:n]) for z, x, n in zip(data["charges"], data["positions"], data["num_atoms"], strict=True)
    ]
    molecules = Molecules.from_lists([z for z, _ in pairs], [x for _, x in pairs])
    for dataset in ("qm9", "geom"):
        assert np.array_equal(stable_atoms(molecules, dataset).numpy(), data["stable_atoms"])


def test_bond_orders_of_single_double_and_triple_bonds() -> None:
    molecules = _named("C2H6", "C2H4", "C2H2", "HCN", "H2CO", "N2")
    orders = bond_orders(molecules)
    heavy = [(z > 1).nonzero().flatten()[:2].tolist() for z in molecules.atomic_numbers]
    assert [int(orders[k, i, j]) for k, (i, j) in enumerate(heavy)] == [1, 2, 3, 3, 2, 3]
    assert orders.dtype == torch.int64
    assert torch.equal(orders, orders.transpose(1, 2))
    assert not orders.diagonal(dim1=1, dim2=2).any()
    assert is_stable(molecules).all()


def test_sulfur_and_phosphorus_need_geom() -> None:
    molecules = _named("PH3", "CH3Cl", "SiH4")
    assert is_stable(molecules, "geom").all()
    assert not is_stable(molecules, "qm9").any()
    assert stable_atoms(molecules, "qm9").tolist() == [0, 3, 0]


def test_elements_with_two_valences_accept_both_and_nothing_between() -> None:
    directions = torch.nn.functional.normalize(
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    for count, wanted in ((3, True), (4, False), (5, True)):
        numbers = np.array([15] + [9] * count)  # PF3, PF4, PF5: F's at the P-F distance, judged as P alone
        positions = np.concatenate([np.zeros((1, 3)), 1.56 * directions[:count].numpy()])
        mask = stable_atom_mask(Molecules.from_lists([numbers], [positions]), "geom")
        assert bool(mask[0, 0]) is wanted


def test_padding_and_non_finite_atoms_are_never_stable_and_hurt_no_other_molecule() -> None:
    water, methane = _named("H2O"), _named("CH4")
    both = Molecules.cat([water, methane, water])
    both.positions[2, 0] = torch.nan
    assert stable_atoms(both).tolist() == [3, 5, 0]
    assert is_stable(both).tolist() == [True, True, False]
    assert not stable_atom_mask(both)[~both.node_mask].any()


def test_a_bond_begins_below_the_limit_not_at_it() -> None:
    lengths = [0.839, 0.841]  # H-H: 74 + 10 pm
    molecules = Molecules.from_lists(
        [np.array([1, 1])] * 2, [np.array([[0, 0, 0], [d, 0, 0]]) for d in lengths]
    )
    assert bond_orders(molecules)[:, 0, 1].tolist() == [1, 0]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    molecules = _named("C2H6", "C2H4", "C2H2", "HCN", "H2CO", "N2", "C6H6")
    whole = bond_orders(molecules), stable_atom_mask(molecules)
    monkeypatch.setattr(stability, "_PAIRS_PER_CHUNK", 300)
    assert torch.equal(bond_orders(molecules), whole[0])
    assert torch.equal(stable_atom_mask(molecules), whole[1])


def test_nothing_gives_nothing() -> None:
    empty = Molecules.from_lists([], [])
    assert bond_orders(empty).shape == (0, 0, 0)
    assert stable_atom_mask(empty).shape == (0, 0)
    assert is_stable(empty).shape == (0,)


def test_tables_list_each_pair_once_and_shorten_with_the_order() -> None:
    for longer, shorter in (
        (bond_tables.SINGLE, bond_tables.DOUBLE),
        (bond_tables.DOUBLE, bond_tables.TRIPLE),
    ):
        for first, row in shorter.items():
            for second, length in row.items():
                assert length < longer[first][second]
    pairs = [(a, b) for a, row in bond_tables.SINGLE.items() for b in row]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
