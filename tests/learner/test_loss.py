"""The loss: closed forms, its gradient, and how it behaves when numbers run away."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from elign.common.config import LearnerSettings
from elign.learner.loss import (
    MAX_STALENESS_WEIGHT,
    UpdateStatistics,
    clipped_surrogate,
    fed_grpo_loss,
    gaussian_kl,
)
from elign.learner.lr_schedule import learning_rate


def loss_of(log_prob: Tensor, behaviour: Tensor, advantage: Tensor, weight: Tensor | None = None) -> Tensor:
    weight = torch.full_like(advantage, 1 / len(advantage)) if weight is None else weight
    return fed_grpo_loss(
        log_prob=log_prob,
        log_prob_proximal=behaviour,
        log_prob_behaviour=behaviour,
        advantage=advantage,
        weight=weight,
        kl=None,
        clip_range=0.2,
        kl_coefficient=0.0,
    ).loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.1, 2.0, -2.2),
        (1.5, 2.0, -2.4),
        (0.5, 2.0, -1.0),
        (1.5, -2.0, 3.0),
        (0.5, -2.0, 1.6),
    ],
)
def test_clipped_surrogate_closed_form(ratio: float, advantage: float, expected: float) -> None:
    got = clipped_surrogate(torch.tensor([math.log(ratio)]), torch.tensor([advantage]), 0.2)
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_gradient_at_ratio_one_is_the_policy_gradient() -> None:
    log_prob = torch.tensor([0.3, -2.0, 5.0], requires_grad=True)
    advantage = torch.tensor([1.0, -0.5, 0.25])
    loss_of(log_prob, log_prob.detach(), advantage).backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert torch.allclose(log_prob.grad, -advantage / 3)


def test_no_gradient_beyond_the_clip_range_in_the_improving_direction() -> None:
    log_prob = torch.tensor([0.5, -0.5], requires_grad=True)
    loss_of(log_prob, torch.zeros(2), torch.tensor([1.0, -1.0])).backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert torch.equal(log_prob.grad, torch.zeros(2))


@pytest.mark.parametrize("staleness", [0.25, 0.8, 1.0, 1.7, 9.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
@pytest.mark.parametrize("advantage", [-2.0, 1.0])
def test_a_row_of_an_older_policy_is_weighed_and_clipped_from_the_proximal_one(
    staleness: float, ratio: float, advantage: float
) -> None:
    """A new policy at ``ratio`` times the proximal one's density, which is ``staleness`` the sampler's."""
    log_prob = torch.tensor([math.log(ratio * staleness)], dtype=torch.float64, requires_grad=True)
    terms = fed_grpo_loss(
        log_prob=log_prob,
        log_prob_proximal=torch.tensor([math.log(staleness)], dtype=torch.float64),
        log_prob_behaviour=torch.zeros(1, dtype=torch.float64),
        advantage=torch.tensor([advantage]),
        weight=torch.ones(1),
        kl=None,
        clip_range=0.2,
        kl_coefficient=0.0,
    )
    terms.loss.backward()  # type: ignore[no-untyped-call]
    weight = min(staleness, MAX_STALENESS_WEIGHT)
    improving_too_far = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    bound = 1.2 if advantage > 0 else 0.8
    assert terms.loss.item() == pytest.approx(
        -weight * advantage * (bound if improving_too_far else ratio), rel=1e-5
    )
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(
        0.0 if improving_too_far else -weight * advantage * ratio, rel=1e-5
    )
    assert terms.ratio.item() == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("log_ratio", [1e27, -1e4, 700.0, 20.5])
def test_runaway_rows_are_left_out_and_counted(log_ratio: float) -> None:
    log_prob = torch.tensor([0.1, log_ratio], requires_grad=True)
    terms = fed_grpo_loss(
        log_prob=log_prob,
        log_prob_proximal=torch.zeros(2),
        log_prob_behaviour=torch.zeros(2),
        advantage=torch.tensor([1.0, -1.0]),
        weight=torch.full((2,), 0.5),
        kl=None,
        clip_range=0.2,
        kl_coefficient=0.0,
    )
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert terms.loss.item() == pytest.approx(-0.5 * math.exp(0.1))
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [pytest.approx(-0.5 * math.exp(0.1)), 0.0]
    statistics = UpdateStatistics.empty(1)
    statistics.add_rows(terms, torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.long), 0.0)
    metrics = statistics.metrics()
    assert metrics["rows_left_out"] == 1
    assert metrics["log_ratio_squared"] == pytest.approx(0.01)


def test_unknown_log_prob_shows_in_the_gradient() -> None:
    log_prob = torch.tensor([0.0, 0.0], requires_grad=True)
    loss_of(log_prob, torch.tensor([0.0, math.nan]), torch.ones(2)).backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert log_prob.grad.isnan().tolist() == [False, True]


def test_filling_rows_count_nothing_even_when_not_finite() -> None:
    log_prob = torch.tensor([0.0, math.nan])
    loss = loss_of(log_prob, torch.zeros(2), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(-1.0)


def test_gaussian_kl_closed_form_and_padding() -> None:
    mu = torch.zeros(1, 3, 4)
    reference = mu.clone()
    reference[0, :2] = 0.3
    reference[0, 2] = 100.0
    mask = torch.tensor([[True, True, False]])
    got = gaussian_kl(mu, reference, torch.tensor([0.5]), mask)
    assert got.item() == pytest.approx(8 * 0.09 / (2 * 0.25), rel=1e-6)


def test_kl_is_added_with_its_coefficient() -> None:
    terms = fed_grpo_loss(
        log_prob=torch.zeros(2),
        log_prob_proximal=torch.zeros(2),
        log_prob_behaviour=torch.zeros(2),
        advantage=torch.tensor([1.0, -1.0]),
        weight=torch.full((2,), 0.5),
        kl=torch.tensor([2.0, 4.0]),
        clip_range=0.2,
        kl_coefficient=0.1,
    )
    assert terms.loss.item() == pytest.approx(0.3)


def test_statistics_do_not_depend_on_the_split() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob, advantage = torch.randn(8, generator=generator) * 0.3, torch.randn(8, generator=generator)
    step = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def run(cuts: list[slice]) -> dict[str, float]:
        statistics = UpdateStatistics.empty(3)
        for cut in cuts:
            size = len(step[cut])
            terms = fed_grpo_loss(
                log_prob=log_prob[cut],
                log_prob_proximal=torch.zeros(size),
                log_prob_behaviour=torch.zeros(size),
                advantage=advantage[cut],
                weight=torch.ones(size),
                kl=torch.ones(size),
                clip_range=0.2,
                kl_coefficient=0.5,
            )
            statistics.add_rows(terms, torch.ones(size, dtype=torch.bool), step[cut], 0.5)
        return statistics.metrics()

    whole, halves = run([slice(0, 8)]), run([slice(0, 3), slice(3, 8)])
    assert whole == pytest.approx(halves)
    assert whole["kl"] == pytest.approx(1.0)
    assert whole["log_ratio_squared"] == pytest.approx(float(log_prob.square().mean()))
    assert whole["log_ratio_squared_max_step"] >= whole["log_ratio_squared"]
    assert whole["ratio_max_deviation"] == pytest.approx(float((log_prob.exp() - 1).abs().max()), rel=1e-5)


def test_learning_rate_warms_up_from_above_zero_and_stays_at_its_end() -> None:
    settings = LearnerSettings(learning_rate=1e-3, final_learning_rate=1e-5, warmup_iterations=4)
    rates = [learning_rate(i, 50, settings) for i in range(60)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[4] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[49:] == [pytest.approx(1e-5)] * 11
    assert rates[4:50] == sorted(rates[4:50], reverse=True)
