"""Distances from the data: geometry of known molecules, and distances whose value is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.statistics import bootstrap_set, bootstrap_set_difference
from elign.learner.distributions import Reference, js_divergence
from elign.learner.diversity import internal_diversity, most_frequent, tanimoto
from elign.learner.geometry_terms import (
    angle_label,
    bond_angles,
    bond_label,
    bond_lengths,
    torsion_label,
    torsions,
)


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def _labels(kinds: np.ndarray, label: object) -> list[str]:
    return sorted({label(int(kind)) for kind in kinds})  # type: ignore[operator]


def test_terms_of_methane_and_water() -> None:
    both = _named("CH4", "H2O")
    lengths, angles = bond_lengths(both, "qm9"), bond_angles(both, "qm9")
    assert _labels(lengths.kinds, bond_label) == ["H–C", "H–O"]
    assert lengths.molecule.tolist() == [0] * 4 + [1] * 2
    assert lengths.values[4:] == pytest.approx([0.969, 0.969], abs=0.01)
    assert _labels(angles.kinds, angle_label) == ["H–C–H", "H–O–H"]
    assert angles.values[:6] == pytest.approx([np.degrees(np.arccos(-1 / 3))] * 6, abs=0.01)
    assert angles.values[6:] == pytest.approx([104.0], abs=1.0)
    assert len(torsions(both, "qm9").values) == 0


def test_torsions_of_ethane_are_staggered_and_those_of_ethylene_flat() -> None:
    ethane = torsions(_named("C2H6"), "qm9")
    assert _labels(ethane.kinds, torsion_label) == ["·–C–C–·"]
    assert np.sort(ethane.values) == pytest.approx([60.0] * 6 + [180.0] * 3, abs=0.5)
    ethylene = torsions(_named("C2H4"), "qm9")
    assert _labels(ethylene.kinds, torsion_label) == ["·–C=C–·"]
    assert np.sort(ethylene.values) == pytest.approx([0.0, 0.0, 180.0, 180.0], abs=0.5)


def test_terms_do_not_change_with_rotation_order_or_padding() -> None:
    one = _named("CH3CH2OH")
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    order = torch.randperm(one.node_mask.shape[1], generator=torch.Generator().manual_seed(1))
    moved = Molecules(one.positions[:, order] @ turn, one.atomic_numbers[:, order], one.node_mask)
    padded = Molecules.cat([moved, _named("C6H6")])
    for terms in (bond_lengths, bond_angles, torsions):
        before, after = terms(one, "qm9"), terms(padded, "qm9")
        own = after.molecule == 0
        assert np.sort(after.values[own]) == pytest.approx(np.sort(before.values), abs=1e-3)
        assert sorted(after.kinds[own]) == sorted(before.kinds)


def _stretched(molecules: Molecules, factor: float) -> Molecules:
    return Molecules(molecules.positions * factor, molecules.atomic_numbers, molecules.node_mask)


def _estimates(reference: Reference, molecules: Molecules) -> dict[str, float]:
    return {
        name: bootstrap_set(s, resamples=50).estimate for name, s in reference.statistics(molecules).items()
    }


def test_the_data_are_at_no_distance_from_themselves() -> None:
    data = _named("CH4", "H2O", "C2H6", "CH3CH2OH", "NH3")
    assert _estimates(Reference.of(data, "qm9"), data) == pytest.approx(
        dict.fromkeys(("bond_lengths", "bond_angles", "torsions", "elements", "sizes"), 0.0), abs=1e-12
    )


def test_stretched_bonds_are_as_far_away_as_they_were_stretched() -> None:
    data = _named("CH4", "CH4")
    found = _estimates(Reference.of(data, "qm9"), _stretched(data, 1.03))
    length = float(bond_lengths(data, "qm9").values.mean())
    assert found["bond_lengths"] == pytest.approx(0.03 * length, abs=0.006)
    assert found["bond_angles"] == pytest.approx(0.0, abs=1e-9)
    assert found["elements"] == found["sizes"] == 0.0


def test_mixes_are_judged_by_jensen_shannon() -> None:
    half = np.array([0.5, 0.5])
    assert js_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)
    assert js_divergence(half, half) == 0.0
    assert js_divergence(np.array([1.0, 0.0]), half) == pytest.approx(
        0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3) + 0.25 * np.log2(2.0)
    )
    reference = Reference.of(_named("CH4"), "qm9")
    assert _estimates(reference, _named("NH3"))["sizes"] == pytest.approx(1.0)


def test_what_has_no_bond_of_the_data_has_no_distance() -> None:
    statistic = Reference.of(_named("CH4"), "qm9").statistics(_named("H2O"))["bond_lengths"]
    assert statistic.count == 0
    assert np.isnan(bootstrap_set(statistic, resamples=20).estimate)


def test_intervals_of_sets_are_seeded_and_pairing_takes_out_what_is_common() -> None:
    names = ["CH4", "H2O", "NH3", "C2H6", "CH3CH2OH", "C2H4"] * 5
    reference = Reference.of(_named(*names[:6]), "qm9")
    before = reference.statistics(_stretched(_named(*names), 1.01))["bond_lengths"]
    after = reference.statistics(_stretched(_named(*names), 1.03))["bond_lengths"]
    assert bootstrap_set(before, seed=3) == bootstrap_set(before, seed=3)
    paired = bootstrap_set_difference(before, after, paired=True)
    alone = bootstrap_set_difference(before, after, paired=False)
    assert paired.excludes_zero
    assert paired.estimate == pytest.approx(alone.estimate)
    assert paired.high - paired.low < alone.high - alone.low


def test_internal_diversity_in_closed_form() -> None:
    assert bootstrap_set(internal_diversity(["CCO"] * 4), resamples=50).estimate == pytest.approx(0.0)
    # water and methane share no bit, so of the pairs of 2 + 2 molecules two thirds differ completely
    assert bootstrap_set(internal_diversity(["O", "O", "C", "C"]), resamples=50).estimate == pytest.approx(
        2 / 3
    )
    nothing = bootstrap_set(internal_diversity([None, "C", None]), resamples=50)
    assert np.isnan(nothing.estimate)
    assert nothing.count == 1
    bits = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=np.float32)
    assert tanimoto(bits)[0].tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_the_most_frequent_molecule_is_named() -> None:
    name, sample = most_frequent(["C", None, "O", "O"])
    assert name == "O"
    assert (sample.values * sample.weights).sum() / sample.weights.sum() == pytest.approx(2 / 3)
    assert most_frequent([None])[0] is None
