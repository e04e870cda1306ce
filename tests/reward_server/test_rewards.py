"""Rewards against closed forms computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from elign.common.config import RewardSettings
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult, RewardQuery
from elign.reward_server.rewards import compute_rewards, energy_returns, force_reward, stability_reward

METHANE = (
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
    ),
)


def settings(**changes: object) -> RewardSettings:
    return RewardSettings.model_validate({"energy_weight": 0.1, **changes})


def copies(count: int) -> Molecules:
    return Molecules.from_lists([METHANE[0]] * count, [METHANE[1]] * count)


def answers(formation: list[float], force: list[float]) -> ForceFieldResult:
    """Results for methanes: every atom's force is (0, 0, f), so that the RMS force is f; NaN is a failure."""
    energy = torch.tensor(formation, dtype=torch.float64)
    forces = torch.zeros(len(formation), 5, 3)
    forces[:, :, 2] = torch.tensor(force)[:, None]
    failures = tuple(Failure.SEVERAL_PIECES if np.isnan(x) else None for x in formation)
    return ForceFieldResult(energy * 5, forces, energy, failures)


def query(num_transitions: int, samples: int, steps: tuple[int, ...]) -> RewardQuery:
    times = tuple(range(10 * num_transitions, -1, -10))
    return RewardQuery(0, copies(samples), times, steps, copies(samples * len(steps)))


def test_rms_force_is_over_atoms_and_not_over_components() -> None:
    forces = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    result = ForceFieldResult(torch.zeros(1), forces, torch.zeros(1), (None,))
    mask = torch.tensor([[True, True, False]])
    assert result.rms_force(mask).item() == pytest.approx(np.sqrt(25 / 2))


@pytest.mark.parametrize(("power", "expected"), [(1, [-2.0, -30.0, 0.0]), (2, [-4.0, -900.0, 0.0])])
def test_force_reward_is_clipped_raised_and_masked(power: int, expected: list[float]) -> None:
    reward, known = force_reward(torch.tensor([2.0, 75.0, torch.nan]), settings(force_power=power))
    assert reward.tolist() == pytest.approx(expected)
    assert known.tolist() == [True, True, False]


def test_shaped_return_is_final_minus_last_scheduled_potential() -> None:
    potential = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    returns = energy_returns(potential, torch.tensor([5.0, 50.0]), (0, 3), 5, settings())
    assert returns[:, 0].tolist() == pytest.approx([4, 4, 4, 3, 3])
    assert returns[:, 1].tolist() == pytest.approx([40, 40, 40, 30, 30])


def test_shaped_return_telescopes_for_any_discount() -> None:
    gamma, steps = 0.9, 6
    generator = torch.Generator().manual_seed(0)
    potential = torch.randn(steps, 3, generator=generator, dtype=torch.float64)
    final = torch.randn(3, generator=generator, dtype=torch.float64)
    values = torch.cat([potential, final[None]])
    shaped = gamma * values[1:] - values[:-1]
    summed = [discounted(shaped[i:], gamma) for i in range(steps)]
    returns = energy_returns(potential, final, tuple(range(steps)), steps, settings(gamma=gamma))
    torch.testing.assert_close(returns, torch.stack(summed))


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    return torch.stack([gamma**k * reward for k, reward in enumerate(rewards)]).sum(0)


def test_delta_is_the_difference_of_neighbouring_potentials_and_adds_up_to_shaped() -> None:
    potential = torch.tensor([[1.0], [4.0]])
    returns = energy_returns(potential, torch.tensor([6.0]), (0, 2), 4, settings(energy_mode="delta"))
    assert returns[:, 0].tolist() == pytest.approx([3, 3, 2, 2])
    whole = energy_returns(potential, torch.tensor([6.0]), (0, 2), 4, settings())
    assert whole[0, 0].item() == pytest.approx(3 + 2)


def test_terminal_is_the_final_potential_everywhere() -> None:
    empty = torch.zeros(0, 2)
    returns = energy_returns(empty, torch.tensor([6.0, 7.0]), (), 3, settings(energy_mode="terminal"))
    assert returns.tolist() == [[6, 7]] * 3


def test_a_schedule_without_the_branch_state_is_refused() -> None:
    with pytest.raises(ValueError, match="transition 0"):
        energy_returns(torch.zeros(1, 2), torch.zeros(2), (1,), 3, settings())


def test_answer_of_a_group_by_hand() -> None:
    final = answers([-1.0, -2.0], [2.0, 75.0])
    predicted = answers([3.0, 4.0, 1.0, 0.5], [0, 0, 0, 0])  # step-major: step 0 of both, then step 2 of both
    answer = compute_rewards(query(3, 2, (0, 2)), final, predicted, settings(), "qm9")
    assert answer.force.tolist() == pytest.approx([-2, -30])
    assert answer.rms_force.tolist() == pytest.approx([2, 75])
    expected = [[1 + 3, 2 + 4], [1 + 3, 2 + 4], [1 + 1, 2 + 0.5]]
    assert answer.energy.tolist() == [pytest.approx(row) for row in expected]
    assert answer.energy_mask.all()
    assert answer.stability.tolist() == [1, 1]
    assert answer.stable.tolist() == [True, True]
    assert answer.force.dtype == answer.energy.dtype == answer.stability.dtype == torch.float32


def test_a_failed_final_molecule_masks_its_force_and_all_its_energy() -> None:
    final = answers([-1.0, np.nan], [2.0, np.nan])
    predicted = answers([3.0, 4.0], [0, 0])
    answer = compute_rewards(query(3, 2, (0,)), final, predicted, settings(), "qm9")
    assert answer.force_mask.tolist() == [True, False]
    assert answer.energy_mask.tolist() == [[True, False]] * 3
    assert answer.force[1] == 0
    assert (answer.energy[:, 1] == 0).all()
    assert answer.stability_mask.tolist() == [True, True]
    assert answer.failures == (None, Failure.SEVERAL_PIECES)
    assert torch.isnan(answer.rms_force[1])


def test_a_failed_potential_masks_just_its_steps_of_its_sample() -> None:
    final = answers([-1.0, -2.0], [2.0, 2.0])
    predicted = answers([3.0, 4.0, 1.0, np.nan, 0.0, 0.0], [0] * 6)
    answer = compute_rewards(query(4, 2, (0, 1, 3)), final, predicted, settings(), "qm9")
    assert answer.energy_mask[:, 0].all()
    assert answer.energy_mask[:, 1].tolist() == [True, False, False, True]
    assert answer.force_mask.all()


def test_an_energy_channel_of_weight_zero_is_masked() -> None:
    final = answers([-1.0], [2.0])
    answer = compute_rewards(query(3, 1, ()), final, answers([], []), settings(energy_weight=0), "qm9")
    assert answer.energy.shape == (3, 1)
    assert not answer.energy_mask.any()


def test_stability_counts_stable_atoms_of_the_largest_piece() -> None:
    numbers = np.concatenate([METHANE[0], [8, 1, 1]])
    water = np.array([[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]) + 20.0
    both = (numbers, np.concatenate([METHANE[1], water]))
    radical = (METHANE[0][:4], METHANE[1][:4])
    nowhere = (METHANE[0], np.full((5, 3), np.nan))
    molecules = Molecules.from_lists(
        [z for z, _ in (both, radical, nowhere)], [x for _, x in (both, radical, nowhere)]
    )
    fraction, known = stability_reward(molecules, "qm9")
    assert fraction.tolist() == pytest.approx([5 / 8, 3 / 4, 0])
    assert known.tolist() == [True, True, False]
