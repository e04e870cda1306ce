"""Advantages: closed forms, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elign.common.scoring import RewardAnswer
from elign.learner.advantages import ChannelWeights, group_advantages, mixed_advantages, normalize

FORCE_ONLY = ChannelWeights(force=1.0, energy=0.0, stability=0.0)


def answer(
    force: Tensor,
    force_mask: Tensor | None = None,
    energy: Tensor | None = None,
    energy_mask: Tensor | None = None,
    stability: Tensor | None = None,
) -> RewardAnswer:
    k = len(force)
    energy = torch.zeros(3, k) if energy is None else energy
    nothing = torch.zeros(k)
    return RewardAnswer(
        force=force,
        force_mask=torch.ones(k, dtype=torch.bool) if force_mask is None else force_mask,
        energy=energy,
        energy_mask=torch.ones_like(energy, dtype=torch.bool) if energy_mask is None else energy_mask,
        stability=nothing if stability is None else stability,
        stability_mask=torch.ones(k, dtype=torch.bool),
        rms_force=nothing,
        formation_energy=nothing,
        stable=torch.ones(k, dtype=torch.bool),
        failures=(None,) * k,
    )


rewards = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8).map(torch.tensor)


def test_normalize_is_the_z_score_with_population_deviation() -> None:
    scored = normalize(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3, dtype=torch.bool))
    expected = math.sqrt(1.5)
    assert torch.allclose(scored, torch.tensor([-expected, 0.0, expected]), atol=1e-6)


def test_masked_samples_are_left_out_of_mean_and_deviation() -> None:
    scored = normalize(torch.tensor([1.0, 1e6, 3.0]), torch.tensor([True, False, True]))
    assert torch.allclose(scored, torch.tensor([-1.0, 0.0, 1.0]), atol=1e-6)


@given(st.floats(-1e6, 1e6, width=32), st.integers(2, 24))
def test_constant_group_gives_exactly_zero(value: float, k: int) -> None:
    scored = normalize(torch.full((k,), value), torch.ones(k, dtype=torch.bool))
    assert torch.equal(scored, torch.zeros(k))


def test_nobody_known_gives_zero_and_no_nan() -> None:
    assert torch.equal(normalize(torch.zeros(4), torch.zeros(4, dtype=torch.bool)), torch.zeros(4))


@settings(max_examples=60, deadline=None)
@given(rewards, st.floats(-100, 100), st.floats(0.01, 100))
def test_shift_and_scale_of_a_groups_rewards_change_nothing(
    force: Tensor, shift: float, scale: float
) -> None:
    if float(force.max() - force.min()) < 0.5:
        return
    mask = torch.ones(len(force), dtype=torch.bool)
    moved = force.double() * scale + shift
    assert torch.allclose(normalize(force, mask), normalize(moved, mask), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(rewards, rewards)
def test_groups_do_not_leak_into_each_other(first: Tensor, second: Tensor) -> None:
    alone = group_advantages(answer(first), FORCE_ONLY, 5.0).values
    group_advantages(answer(second), FORCE_ONLY, 5.0)
    assert torch.equal(alone, group_advantages(answer(first), FORCE_ONLY, 5.0).values)


def test_channels_are_normalized_apart_then_added() -> None:
    force = torch.tensor([-1.0, -3.0])
    energy = torch.tensor([[1000.0, 0.0], [0.0, 0.0], [5.0, 10.0]])
    stability = torch.tensor([0.5, 1.0])
    weights = ChannelWeights(force=1.0, energy=0.5, stability=0.25)
    got = group_advantages(answer(force, energy=energy, stability=stability), weights, 5.0)
    expected = torch.tensor([[1.25, -1.25], [0.75, -0.75], [0.25, -0.25]])
    assert torch.allclose(got.values, expected, atol=1e-6)
    assert got.valid.all()


def test_unknown_energy_at_one_step_leaves_the_other_channels_there() -> None:
    energy_mask = torch.tensor([[True, True], [False, True], [True, True]])
    got = group_advantages(
        answer(torch.tensor([-1.0, -3.0]), energy=torch.rand(3, 2), energy_mask=energy_mask),
        ChannelWeights(force=1.0, energy=1.0, stability=0.0),
        5.0,
    )
    assert got.valid.all()
    assert torch.allclose(got.values[1], torch.tensor([1.0, -1.0]), atol=1e-6)


def test_sample_no_channel_knows_is_out_of_the_loss() -> None:
    got = group_advantages(answer(torch.tensor([0.0, -1.0, -2.0]), torch.tensor([False, True, True])),
                           FORCE_ONLY, 5.0)  # fmt: skip
    assert not got.valid[:, 0].any()
    assert got.valid[:, 1:].all()
    assert torch.equal(got.values[:, 0], torch.zeros(3))


def test_a_channel_of_weight_zero_does_not_validate_a_sample() -> None:
    weights = ChannelWeights(force=1.0, energy=0.0, stability=0.0)
    got = group_advantages(answer(torch.zeros(2), torch.zeros(2, dtype=torch.bool)), weights, 5.0)
    assert not got.valid.any()


@pytest.mark.parametrize("clip", [0.5, 1.0])
def test_advantages_are_clipped(clip: float) -> None:
    got = group_advantages(answer(torch.tensor([0.0] * 9 + [-100.0])), FORCE_ONLY, clip)
    assert float(got.values.abs().max()) <= clip
    assert float(got.values.min()) == -clip


def test_mixed_advantages_are_the_z_scores_of_the_weighted_sum() -> None:
    force = torch.tensor([-1.0, -3.0, -2.0])
    energy = torch.tensor([[1.0, 0.0, 7.0]]).expand(3, 3)
    stability = torch.tensor([0.5, 1.0, 0.0])
    weights = ChannelWeights(force=1.0, energy=0.5, stability=2.0)
    got = mixed_advantages(answer(force, energy=energy, stability=stability), weights, 5.0)
    total = force + 0.5 * energy + 2.0 * stability
    expected = (total - total.mean()) / total[0].std(correction=0)
    assert torch.allclose(got.values, expected, atol=1e-6)
    assert got.valid.all()


def test_with_one_channel_both_normalizations_agree() -> None:
    rewards = answer(torch.tensor([0.0, -1.0, -4.0]), torch.tensor([True, False, True]))
    apart, mixed = (f(rewards, FORCE_ONLY, 5.0) for f in (group_advantages, mixed_advantages))
    assert torch.equal(apart.values, mixed.values)
    assert torch.equal(apart.valid, mixed.valid)


def test_a_loud_channel_drowns_the_others_only_where_they_are_mixed() -> None:
    force, energy = torch.tensor([-1.0, -1.1]), torch.tensor([[0.0, 1000.0]]).expand(3, 2)
    weights = ChannelWeights(force=1.0, energy=0.1, stability=0.0)
    rewards = answer(force, energy=energy)
    assert (group_advantages(rewards, weights, 5.0).values[:, 0] > 0).all()
    assert (mixed_advantages(rewards, weights, 5.0).values[:, 0] < 0).all()
