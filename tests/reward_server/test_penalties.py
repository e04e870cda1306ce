"""Gates, clips and penalties enter where their settings say: before normalization, each in its channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elign.common.chemistry import canonical_smiles
from elign.common.config import RewardSettings
from elign.common.config_load import load_config
from elign.common.errors import ConfigError
from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult, RewardAnswer, RewardQuery
from elign.common.stability import valence_error
from elign.reward_server.penalties import duplicate_share, penalties
from elign.reward_server.rewards import compute_rewards

METHANE = (
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
    ),
)
RADICAL = (METHANE[0][:4], METHANE[1][:4])
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]))
# carbon with five hydrogens: RDKit refuses it
CROWDED = (
    np.array([6, 1, 1, 1, 1, 1]),
    np.array([[0, 0, 0], [1.09, 0, 0], [-1.09, 0, 0], [0, 1.09, 0], [0, -1.09, 0], [0, 0, 1.09]]),
)


def batch(*chosen: tuple[np.ndarray, np.ndarray]) -> Molecules:
    return Molecules.from_lists([z for z, _ in chosen], [x for _, x in chosen])


def settings(**changes: object) -> RewardSettings:
    return RewardSettings.model_validate({"stability_weight": 1.0, "energy_weight": 0.1, **changes})


def answer(
    molecules: Molecules, formation: list[float], chosen: RewardSettings, known: frozenset[str] = frozenset()
) -> RewardAnswer:
    """Of a group with one trained step whose branch potential is 0."""
    count = len(molecules)
    energy = torch.tensor(formation, dtype=torch.float64)
    forces = torch.ones_like(molecules.positions) * molecules.node_mask.unsqueeze(-1)
    final = ForceFieldResult(energy, forces, energy, (None,) * count)
    start = ForceFieldResult(energy * 0, forces, energy * 0, (None,) * count)
    query = RewardQuery(0, molecules, (10, 0), (0,), molecules)
    return compute_rewards(query, final, start, chosen, "qm9", known)


def test_everything_is_off_unless_set() -> None:
    assert penalties(batch(METHANE, RADICAL, CROWDED), settings(), "qm9", frozenset()).tolist() == [0, 0, 0]


def test_valence_error_counts_missing_and_surplus_bonds() -> None:
    molecules = batch(METHANE, RADICAL, CROWDED, WATER)
    hard = valence_error(molecules, smooth=False)
    assert hard.tolist() == pytest.approx([0, 1 / 4, 1 / 6, 0])
    smooth = valence_error(molecules, smooth=True)
    torch.testing.assert_close(smooth, hard, rtol=0, atol=0.15)


def test_the_smooth_error_grows_steadily_as_an_atom_leaves() -> None:
    stretched = []
    for stretch in np.linspace(1.0, 1.6, 25):
        positions = METHANE[1].copy()
        positions[1] *= stretch
        stretched.append((METHANE[0], positions))
    smooth = valence_error(batch(*stretched), smooth=True)
    assert (smooth.diff() >= -1e-6).all()
    assert smooth.diff().max() < 0.2
    hard = valence_error(batch(*stretched), smooth=False)
    assert hard.unique().tolist() == pytest.approx([0, 2 / 5])
    assert float(smooth[-1]) == pytest.approx(2 / 5, abs=0.05)


def test_valence_error_of_padding_is_nothing_and_of_nowhere_is_unknown() -> None:
    nowhere = (METHANE[0], np.full((5, 3), np.nan))
    error = valence_error(batch(METHANE, nowhere, CROWDED), smooth=True)
    assert torch.isnan(error).tolist() == [False, True, False]
    torch.testing.assert_close(error[0], valence_error(batch(METHANE), smooth=True)[0])


def test_the_alike_share_the_blame() -> None:
    assert duplicate_share(["C", "O", "C", None, "C", None]).tolist() == pytest.approx(
        [2 / 3, 0, 2 / 3, 0, 2 / 3, 0]
    )


def test_penalties_come_off_the_stability_channel_alone() -> None:
    molecules = batch(METHANE, METHANE, WATER, CROWDED)
    plain = answer(molecules, [1, 1, 1, 1], settings())
    chosen = settings(duplicate_penalty=0.4, known_penalty=0.3, known_molecules="x.gz", invalid_penalty=0.5)
    water = canonical_smiles(molecules)[2]
    assert water is not None
    punished = answer(molecules, [1, 1, 1, 1], chosen, frozenset({water}))
    difference = plain.stability - punished.stability
    assert difference.tolist() == pytest.approx([0.2, 0.2, 0.3, 0.5])
    assert torch.equal(punished.force, plain.force)
    assert torch.equal(punished.energy, plain.energy)


def test_a_sample_without_finite_coordinates_stays_masked() -> None:
    nowhere = (METHANE[0], np.full((5, 3), np.nan))
    punished = answer(batch(METHANE, nowhere), [1, 1], settings(valence_penalty=1.0, invalid_penalty=1.0))
    assert punished.stability_mask.tolist() == [True, False]
    assert float(punished.stability[1]) == 0.0


def test_a_gate_masks_what_is_not_stable_in_its_channel_alone() -> None:
    molecules = batch(METHANE, RADICAL)
    force = answer(molecules, [1, 2], settings(force_only_stable=True))
    assert force.force_mask.tolist() == [True, False]
    assert float(force.force[1]) == 0.0
    assert force.energy_mask.tolist() == [[True, True]]
    energy = answer(molecules, [1, 2], settings(energy_only_stable=True))
    assert energy.force_mask.tolist() == [True, True]
    assert energy.energy_mask.tolist() == [[True, False]]
    assert energy.energy.tolist() == [[-1.0, 0.0]]


def test_energies_are_clipped_before_they_are_compared() -> None:
    clipped = answer(batch(METHANE, METHANE, METHANE), [0.5, 9.0, -9.0], settings(energy_clip=2.0))
    assert clipped.energy.tolist() == [pytest.approx([-0.5, -2.0, 2.0])]
    assert clipped.formation_energy.tolist() == [0.5, 9.0, -9.0]  # reports see what the force field said


def test_a_penalty_without_effect_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="stability_weight must not be 0"):
        load_config(None, None, ["reward.invalid_penalty=1.0"])
    with pytest.raises(ConfigError, match="known_molecules"):
        load_config(None, None, ["reward.known_penalty=1.0", "reward.stability_weight=1.0"])
