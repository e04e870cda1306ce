"""Rows and their scores: what the actor recorded is what the learner sees, however the rows are cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elign.common.checkpoint import load_policy
from elign.common.config_load import load_config
from elign.common.policy import DiffusionPolicy
from elign.common.rollout import RolloutPlan, ScoredTrajectory
from elign.common.sampling import sample_group
from elign.learner.advantages import Advantages, ChannelWeights, group_advantages
from elign.learner.proximal import ProximalPolicy
from elign.learner.reference_means import ReferenceMeans
from elign.learner.row_scoring import score_rows, split_rows
from elign.learner.transitions import (
    ADVANTAGE,
    GROUP_ID,
    LOG_PROB_BEHAVIOUR,
    NODE_MASK,
    STALE,
    STEP,
    WEIGHT,
    Z_S,
    Z_T,
    Rows,
    S,
    T,
    build_rows,
    choose_steps,
    from_float64_bits,
    lay_out_minibatches,
    num_rows,
)
from tests.learner.rollouts import random_rewards, roll_out_groups, tiny_policy

MAX_PAIRS = 8192
WEIGHTS = ChannelWeights(force=1.0, energy=0.5, stability=0.0)


def rows_of(
    policy: DiffusionPolicy, sizes: list[int], skip_last: int = 1, num_steps: int = 8, policy_version: int = 0
) -> Rows:
    scored = roll_out_groups(policy, sizes, num_steps=num_steps)
    advantages = [group_advantages(s.rewards, WEIGHTS, 5.0) for s in scored]
    return build_rows(scored, advantages, all_but(scored, skip_last), policy_version)


def all_but(scored: list[ScoredTrajectory], last: int) -> list[np.ndarray]:
    """Every step of each group but the last ones."""
    return [np.arange(len(s.trajectory.times) - 1) < len(s.trajectory.times) - 1 - last for s in scored]


def tensors(rows: Mapping[str, np.ndarray], part: slice = slice(None)) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(column[part])) for name, column in rows.items()}


@pytest.mark.parametrize("sizes", [[5], [25, 5, 14], [18, 18, 9], [9, 14, 18, 25, 5]])
def test_log_prob_matches_between_actor_and_learner_for_every_bucket(sizes: list[int]) -> None:
    policy = tiny_policy()
    with torch.no_grad():
        for chunk in split_rows(tensors(rows_of(policy, sizes)), MAX_PAIRS):
            log_ratio = score_rows(policy, chunk).log_prob - from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
            assert float((log_ratio.exp() - 1).abs().max()) < 1e-5


def test_log_prob_matches_for_the_shipped_policy_as_it_is_trained() -> None:
    policy, config = load_policy("elign-qm9-small"), load_config("laptop", None, [])
    rows = rows_of(policy, [25, 18, 17, 9], config.learner.skip_last, config.rollout.num_steps)
    deviations = []
    with torch.no_grad():
        for chunk in split_rows(tensors(rows), MAX_PAIRS):
            log_ratio = score_rows(policy, chunk).log_prob - from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
            deviations.append((log_ratio.exp() - 1).abs())
    everything = torch.cat(deviations)
    assert float(everything.quantile(0.95)) < 1e-5
    # float32 rounding of the network, on the last trained steps of the largest molecules
    assert float(everything.max()) < 3e-5


def test_log_prob_matches_for_a_conditional_policy() -> None:
    policy = tiny_policy(conditioning=("alpha",))
    with torch.no_grad():
        (chunk,) = split_rows(tensors(rows_of(policy, [9])), MAX_PAIRS)
        log_ratio = score_rows(policy, chunk).log_prob - from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
    assert float(log_ratio.abs().max()) < 1e-5


def test_log_prob_matches_where_the_composition_is_given() -> None:
    policy, elements = tiny_policy(), (8, 6, 6, 1, 1, 1, 1)
    trajectory = sample_group(
        policy,
        RolloutPlan(0, len(elements), 3, seed=1, elements=elements),
        num_steps=8,
        shared_prefix=0.5,
        potential_steps=lambda _: (0, 2),
        policy_version=0,
    )
    for molecules in (trajectory.molecules, trajectory.predicted):
        assert {tuple(sorted(m)) for m in molecules.atomic_numbers.tolist()} == {tuple(sorted(elements))}
    scored = ScoredTrajectory(trajectory, random_rewards(4, 3, seed=0), {})
    rows = build_rows([scored], [group_advantages(scored.rewards, WEIGHTS, 5.0)], [np.ones(4, dtype=bool)], 0)
    with torch.no_grad():
        (chunk,) = split_rows(tensors(rows), MAX_PAIRS)
        log_prob = score_rows(policy, chunk, positions_only=True).log_prob
    log_ratio = log_prob - from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
    assert float(log_ratio.abs().max()) < 1e-5


def test_kl_of_positions_alone_ignores_features() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        (chunk,) = split_rows(tensors(rows_of(policy, [9])), MAX_PAIRS)
        mu = policy.transition(chunk[Z_T], chunk[T], chunk[S], chunk[NODE_MASK]).mu
        mu[..., 3:] += 1.0
        everything, alone = (score_rows(policy, chunk, mu, positions_only=only).kl for only in (False, True))
    assert everything is not None
    assert alone is not None
    assert bool((everything > 0).all())
    assert torch.equal(alone, torch.zeros_like(alone))


def test_kl_to_itself_is_zero_and_to_another_is_not() -> None:
    policy, other = tiny_policy(0), tiny_policy(1)
    with torch.no_grad():
        (chunk,) = split_rows(tensors(rows_of(policy, [9])), MAX_PAIRS)
        own, foreign = (
            score_rows(policy, chunk, p.transition(chunk[Z_T], chunk[T], chunk[S], chunk[NODE_MASK]).mu).kl
            for p in (policy, other)
        )
    assert own is not None
    assert foreign is not None
    assert torch.equal(own, torch.zeros_like(own))
    assert bool((foreign > 0).all())


def test_splitting_does_not_change_the_gradient() -> None:
    policy = tiny_policy()
    rows = tensors(rows_of(policy, [5, 9, 25, 18]))

    def gradient(chunks: list[dict[str, Tensor]]) -> Tensor:
        policy.zero_grad()
        for chunk in chunks:
            (score_rows(policy, chunk).log_prob * chunk[ADVANTAGE]).sum().backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    whole, split = gradient([rows]), gradient(split_rows(rows, MAX_PAIRS))
    assert len(split_rows(rows, MAX_PAIRS)) > 1
    assert float((whole - split).norm() / whole.norm()) < 1e-5


def test_rows_carry_the_right_states_times_and_advantages() -> None:
    scored = roll_out_groups(tiny_policy(), [9, 5])
    advantages = [group_advantages(s.rewards, WEIGHTS, 5.0) for s in scored]
    rows = build_rows(scored[::-1], advantages[::-1], all_but(scored, 1), 0)
    assert num_rows(rows) == 2 * 3 * 3
    for row in range(num_rows(rows)):
        trajectory = scored[rows[GROUP_ID][row]].trajectory
        step, n = rows[STEP][row], trajectory.plan.num_atoms
        sample = (
            int((rows[STEP] == step)[: row + 1][rows[GROUP_ID][: row + 1] == rows[GROUP_ID][row]].sum()) - 1
        )
        assert (rows[T][row], rows[S][row]) == trajectory.times[step : step + 2]
        assert np.array_equal(rows[Z_T][row, :n], trajectory.z[step, sample].numpy())
        assert np.array_equal(rows[Z_S][row, :n], trajectory.z[step + 1, sample].numpy())
        assert rows[NODE_MASK][row].sum() == n
        assert rows[ADVANTAGE][row] == advantages[rows[GROUP_ID][row]].values[step, sample]


def test_reference_means_are_computed_once_and_are_right_whatever_the_chunks() -> None:
    reference = tiny_policy(3)
    rows = tensors(rows_of(tiny_policy(), [5, 9, 25, 18]))
    evaluations: list[int] = []
    reference.network.register_forward_pre_hook(lambda _module, inputs: evaluations.append(len(inputs[0])))
    means = ReferenceMeans(reference, len(rows[T]))
    means.prepare(rows)
    for order in (torch.arange(len(rows[T])), torch.randperm(len(rows[T]))):
        shuffled = {name: column[order] for name, column in rows.items()}
        for chunk in split_rows(shuffled, 2000):
            with torch.no_grad():
                expected = reference.transition(chunk[Z_T], chunk[T], chunk[S], chunk[NODE_MASK]).mu
            evaluations.clear()
            torch.testing.assert_close(means.of(chunk), expected, rtol=1e-5, atol=1e-5)
            assert sum(evaluations) == (len(chunk[T]) if torch.equal(order, order.sort().values) else 0)


@given(st.integers(1, 60), st.integers(0, 8), st.none() | st.integers(1, 60), st.integers(0, 99))
def test_chosen_steps_are_as_many_as_wanted_and_never_the_last(
    num_steps: int, skip_last: int, wanted: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    trained = choose_steps(num_steps, skip_last=skip_last, wanted=wanted, rng=rng)
    left = max(num_steps - skip_last, 0)
    assert trained.sum() == (left if wanted is None else min(wanted, left))
    assert not trained[left:].any()


def test_every_step_is_chosen_equally_often() -> None:
    rng = np.random.default_rng(0)
    counts = sum(choose_steps(10, skip_last=2, wanted=2, rng=rng).astype(int) for _ in range(4000))
    assert counts[8:].sum() == 0
    assert np.abs(counts[:8] / 4000 - 0.25).max() < 0.04


def test_rows_without_a_known_reward_are_left_out() -> None:
    scored = roll_out_groups(tiny_policy(), [9])
    valid = torch.ones(4, 3, dtype=torch.bool)
    valid[2, 1] = False
    valid[:, 2] = False
    rows = build_rows(scored, [Advantages(torch.ones(4, 3), valid)], all_but(scored, 0), 0)
    assert num_rows(rows) == 7
    assert num_rows(build_rows(scored, [Advantages(torch.ones(4, 3), ~valid)], all_but(scored, 4), 0)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 97), st.integers(1, 4), st.integers(1, 40))
def test_every_learner_gets_equal_minibatches_and_every_row_counts_once(
    total: int, num_learners: int, minibatch_size: int
) -> None:
    rows = {T: np.arange(total), WEIGHT: np.ones(total, dtype=np.float32)}
    layout = lay_out_minibatches(
        rows, num_learners=num_learners, minibatch_size=minibatch_size, rng=np.random.default_rng(0)
    )
    per_learner = layout.rows_per_minibatch * layout.minibatches_per_learner
    assert num_rows(layout.rows) == per_learner * num_learners
    assert layout.rows_per_minibatch * num_learners < minibatch_size + num_learners
    real = layout.rows[T][layout.rows[WEIGHT] > 0]
    assert sorted(real.tolist()) == list(range(total))
    minibatches = layout.minibatches_per_learner
    assert float(layout.rows[WEIGHT].sum()) / num_learners == pytest.approx(minibatches, rel=1e-5)


def test_two_learners_see_the_rows_of_one_in_the_same_steps() -> None:
    rows = {T: np.arange(64), WEIGHT: np.ones(64, dtype=np.float32)}
    one, two = (
        lay_out_minibatches(rows, num_learners=n, minibatch_size=16, rng=np.random.default_rng(1))
        for n in (1, 2)
    )
    first, second = two.rows[T].reshape(2, 4, 8)
    for step in range(4):
        assert sorted([*first[step], *second[step]]) == sorted(one.rows[T].reshape(4, 16)[step])


def test_only_rows_of_an_older_policy_are_asked_about_anew() -> None:
    sampler, learning = tiny_policy(0), tiny_policy(1)
    proximal = ProximalPolicy(learning, positions_only=False)
    for version in (0, 1):
        (chunk,) = split_rows(tensors(rows_of(sampler, [9], policy_version=version)), MAX_PAIRS)
        assert bool((chunk[STALE] == (version == 1)).all())
        with torch.no_grad():
            expected = score_rows(learning, chunk).log_prob
        recorded = from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
        assert torch.equal(proximal.log_prob(chunk), expected if version else recorded)
        assert not torch.allclose(expected, recorded)


def test_proximal_policy_stays_what_it_was_while_the_other_learns() -> None:
    policy = tiny_policy()
    (chunk,) = split_rows(tensors(rows_of(policy, [9], policy_version=1)), MAX_PAIRS)
    proximal = ProximalPolicy(policy, positions_only=False)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1
    log_ratio = proximal.log_prob(chunk) - from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
    assert float(log_ratio.abs().max()) < 1e-5


def test_filling_rows_and_mixed_chunks_keep_each_row_its_own() -> None:
    sampler, learning = tiny_policy(0), tiny_policy(1)
    (chunk,) = split_rows(tensors(rows_of(sampler, [9])), MAX_PAIRS)
    number = len(chunk[STALE])
    chunk[STALE] = torch.arange(number) % 2 == 0
    chunk[WEIGHT][:4] = 0.0
    got = ProximalPolicy(learning, positions_only=False).log_prob(chunk)
    with torch.no_grad():
        anew = score_rows(learning, chunk).log_prob
    recorded = from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
    asked = chunk[STALE] & (torch.arange(number) >= 4)
    assert torch.allclose(got, torch.where(asked, anew, recorded), atol=1e-6, rtol=0)
