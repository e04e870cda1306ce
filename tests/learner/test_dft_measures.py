"""DFT's part of an evaluation: composition taken out, failures named, only those asked counted; alarms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.collections import g2

from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.learner.alarms import collapse_alarms
from elign.learner.dft_measures import dft_composition, dft_judgement
from elign.learner.distributions import Reference
from elign.learner.evaluate import compare, evaluate_molecules

PER_ATOM = {1: -2.0, 6: -6.0, 7: -4.0, 8: -3.0}


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def _everything() -> list[Atoms]:
    return [Atoms(ase_molecule(name), info={"name": name}) for name in g2.names]


def _answers(molecules: Molecules, above: float, failures: tuple[Failure | None, ...]) -> ForceFieldResult:
    """Energies that are sums over atoms, plus ``above`` eV an atom."""
    table = torch.zeros(20, dtype=torch.float64)
    table[list(PER_ATOM)] = torch.tensor(list(PER_ATOM.values()), dtype=torch.float64)
    formation = table[molecules.atomic_numbers].sum(1) / molecules.num_atoms + above
    failed = torch.tensor([failure is not None for failure in failures])
    forces = torch.zeros_like(molecules.positions)
    forces[..., 0] = molecules.node_mask.float()
    forces[:, 0, 0] = 2.0
    return ForceFieldResult(
        formation * molecules.num_atoms, forces, formation.masked_fill(failed, torch.nan), failures
    )


def test_energies_above_composition_do_not_depend_on_the_mix() -> None:
    data = _named("CH4", "H2O", "NH3", "CH3CH2OH")
    baseline = dft_composition(_answers(data, 0.0, (None,) * 4), data)
    assert baseline is not None
    sampled = _named("CH3OH", "N2", "CO2")
    judged = dft_judgement(_answers(sampled, 0.3, (None, Failure.TIME_LIMIT, None)), sampled, baseline)
    evaluation = evaluate_molecules(
        Molecules.cat([sampled, _named("CH4")]), "qm9", {}, judgements=[judged], seed=1
    )
    above = evaluation.summary["dft.composition_energy"]
    assert (above.estimate, above.count) == (pytest.approx(0.3), 2)
    assert evaluation.summary["dft.judged"].estimate == pytest.approx(2 / 3)
    assert evaluation.summary["dft.max_force"].estimate == pytest.approx(2.0)
    assert evaluation.failures["dft"] == {"time_limit": 1}


def test_no_answer_for_the_data_means_no_baseline() -> None:
    data = _named("CH4")
    result = _answers(data, 0.0, (Failure.NOT_CONVERGED,))
    assert dft_composition(result, data) is None
    assert "composition_energy" not in dft_judgement(result, data, None).measures


def test_sets_without_common_places_are_compared_unpaired() -> None:
    one, other = (evaluate_molecules(_named(*names), "qm9", {}) for names in (["CH4"], ["H2O", "NH3"]))
    comparison = compare(one, other, paired=False)
    assert comparison.differences["validity"].estimate == 0.0
    assert not comparison.paired


def test_a_collapsed_policy_raises_alarms_and_a_sound_one_none() -> None:
    elements = set("HCNO")
    names = [a.info["name"] for a in _everything() if set(a.get_chemical_symbols()) <= elements][:40]
    data = Reference.of(_named(*names), "qm9")
    sound = evaluate_molecules(_named(*names), "qm9", {}, data=data)
    collapsed = evaluate_molecules(_named(*["NH3"] * 38, "CH4", "H2O"), "qm9", {}, data=data)
    found = collapse_alarms(collapsed, sound)
    assert list(found) == ["repeated_molecule", "less_diverse", "elements_off_the_data"]
    assert "[H]N([H])[H]" in found["repeated_molecule"]
    assert collapse_alarms(sound, sound) == {}
    assert list(collapse_alarms(collapsed, None)) == ["repeated_molecule"]
    assert np.isfinite(sound.summary["internal_diversity"].low)
