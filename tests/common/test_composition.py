"""Composition baselines: exact where energies are sums over atoms, sensible where they are not determined."""

from __future__ import annotations

import numpy as np
import pytest

from elign.common.composition import fit_composition
from elign.common.errors import DataError
from elign.common.molecules import Molecules


def _molecules(*formulas: list[int]) -> Molecules:
    return Molecules.from_lists([np.array(f) for f in formulas], [np.zeros((len(f), 3)) for f in formulas])


def test_a_sum_over_atoms_leaves_nothing() -> None:
    data = _molecules([8, 1, 1], [6, 1, 1, 1, 1], [6, 8, 1, 1], [6, 6, 1, 1])
    per_atom = {1: -2.5, 6: -7.0, 8: -4.0}
    energies = np.array([sum(per_atom[int(z)] for z in numbers) for numbers, _ in data.arrays()])
    baseline = fit_composition(data, energies)
    assert dict(baseline.coefficients) == pytest.approx(per_atom)
    np.testing.assert_allclose(baseline.per_atom(data, energies + 3.0), 3.0 / data.num_atoms.numpy())


def test_what_is_not_determined_stays_at_the_mean() -> None:
    baseline = fit_composition(_molecules([8, 1, 1], [8, 1, 1]), np.array([-9.0, -9.0]))
    assert baseline.default == pytest.approx(-3.0)
    assert dict(baseline.coefficients) == pytest.approx({1: -3.0, 8: -3.0})
    assert baseline.per_atom(_molecules([9, 9]), np.array([-6.0])) == pytest.approx([0.0])


def test_molecules_without_an_energy_are_left_out() -> None:
    data = _molecules([1, 1], [6, 1])
    baseline = fit_composition(data, np.array([-4.0, np.nan]))
    assert baseline.count == 1
    assert np.isnan(baseline.per_atom(data, np.array([np.nan, 0.0]))[0])
    with pytest.raises(DataError, match="no reference molecule has an energy"):
        fit_composition(data, np.array([np.nan, np.nan]))
