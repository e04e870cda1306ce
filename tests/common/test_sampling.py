"""Sampling keeps one seed, one result; groups share a prefix and score themselves right."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan
from elign.common.sampling import (
    branch_index,
    choose_potential_steps,
    sample_group,
    sample_molecules,
    time_grid,
)


@pytest.fixture(name="policy", scope="module")
def _policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(PolicySpec(hidden=16, num_layers=2)).eval()


@given(st.integers(1, 1000))
def test_time_grid_descends_from_all_noise_to_none(num_steps: int) -> None:
    grid = time_grid(num_steps)
    assert grid[0] == 1000
    assert grid[-1] == 0
    assert len(grid) == num_steps + 1
    assert min(a - b for a, b in pairwise(grid)) >= 1


@given(st.integers(10, 300))
def test_few_steps_are_dense_near_the_end_and_not_coarse_at_the_start(num_steps: int) -> None:
    grid, even = time_grid(num_steps), 1000 / num_steps
    assert grid[0] - grid[1] <= 1.2 * even + 1
    assert grid[-3] < 2 * even / 2 + 1


def test_all_times_are_taken_when_there_are_as_many_steps() -> None:
    assert time_grid(1000) == list(range(1000, -1, -1))


def test_time_grid_refuses_more_steps_than_times() -> None:
    with pytest.raises(ValueError, match="1001"):
        time_grid(1001)


@given(st.sampled_from(["uniform", "adaptive"]), st.integers(1, 60), st.integers(1, 60))
def test_potential_steps_start_at_the_branch_and_stay_inside(
    schedule: str, transitions: int, evaluations: int
) -> None:
    steps = choose_potential_steps(schedule, transitions, evaluations)
    assert steps[0] == 0
    assert list(steps) == sorted(set(steps))
    assert steps[-1] < transitions
    assert len(steps) <= min(evaluations, transitions)


def test_adaptive_potential_steps_are_denser_near_the_end() -> None:
    steps = choose_potential_steps("adaptive", 40, 8)
    assert steps[1] - steps[0] > steps[-1] - steps[-2]


def test_molecule_depends_on_seed_and_index_alone(policy: DiffusionPolicy) -> None:
    sizes = [5, 9, 3, 7]
    whole = sample_molecules(policy, sizes, num_steps=6, seed=3)
    in_company = sample_molecules(policy, [*sizes, 5, 8, 29, 5], num_steps=6, seed=3)[:4]
    torch.testing.assert_close(whole.positions, in_company.positions[:, :9], rtol=1e-4, atol=1e-4)
    assert torch.equal(whole.atomic_numbers, in_company.atomic_numbers[:, :9])
    assert whole.num_atoms.tolist() == sizes
    other = sample_molecules(policy, sizes, num_steps=6, seed=4)
    assert not torch.allclose(whole.positions, other.positions)


def test_more_steps_than_a_noise_block_keep_the_seed(policy: DiffusionPolicy) -> None:
    alone = sample_molecules(policy, [3], num_steps=60, seed=1)
    first = sample_molecules(policy, [3, 3], num_steps=60, seed=1)[:1]
    torch.testing.assert_close(first.positions, alone.positions, rtol=1e-3, atol=1e-3)


def test_number_of_threads_changes_nothing(policy: DiffusionPolicy) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(sample_molecules(policy, [5, 29, 12, 7, 7], num_steps=5, seed=2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0].positions, results[1].positions)


def test_interruption_leaves_the_rest_undone(policy: DiffusionPolicy) -> None:
    seen: list[int] = []

    def interrupt(done: int, _total: int) -> None:
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_molecules(policy, [4 * n for n in range(1, 8)], num_steps=20, seed=0, progress=interrupt)
    assert len(seen) == 1


def test_molecules_are_predicted_from_where_denoising_is_told_to_stop(policy: DiffusionPolicy) -> None:
    grid, sizes = time_grid(10), [5, 8]
    finished = sample_molecules(policy, sizes, num_steps=10, seed=3)
    early = [
        sample_molecules(policy, sizes, num_steps=10, seed=3, predict_at=t) for t in (grid[6], grid[5] - 1)
    ]
    torch.testing.assert_close(early[0].positions, early[1].positions, rtol=0, atol=0)
    assert not torch.allclose(early[0].positions, finished.positions)
    untouched = sample_molecules(policy, sizes, num_steps=10, seed=3, predict_at=1000)
    assert len(untouched) == 2
    assert not torch.allclose(untouched.positions, early[0].positions)


def test_nothing_to_sample_gives_an_empty_batch(policy: DiffusionPolicy) -> None:
    assert len(sample_molecules(policy, [], num_steps=4, seed=0)) == 0


def test_group_shares_its_start_then_branches(policy: DiffusionPolicy) -> None:
    plan = RolloutPlan(group_id=0, num_atoms=6, num_samples=4, seed=11)
    trajectory = sample_group(
        policy, plan, num_steps=10, shared_prefix=0.6, potential_steps=lambda n: (0, n - 1), policy_version=7
    )
    assert branch_index(10, 0.6) == 6
    assert trajectory.times == (256, 153, 72, 19, 0)
    assert trajectory.z.shape == (5, 4, 6, policy.state_dim)
    assert trajectory.log_prob.shape == (4, 4)
    assert trajectory.policy_version == 7
    assert len(trajectory.predicted) == 2 * 4
    assert len(trajectory.molecules) == 4
    assert torch.equal(trajectory.z[0, 0], trajectory.z[0, 3])
    assert not torch.allclose(trajectory.z[1, 0], trajectory.z[1, 3])
    # predictions at the branch are one and the same state's
    assert torch.equal(trajectory.predicted.positions[0], trajectory.predicted.positions[3])
    x = trajectory.z[..., :3]
    assert float(x.mean(2).abs().max()) < 1e-5 * float(x.abs().max())


def test_log_prob_of_a_group_is_reproduced_by_the_learner_side(policy: DiffusionPolicy) -> None:
    plan = RolloutPlan(group_id=0, num_atoms=7, num_samples=3, seed=5)
    trajectory = sample_group(
        policy, plan, num_steps=8, shared_prefix=0.5, potential_steps=lambda _: (), policy_version=0
    )
    steps, K = trajectory.log_prob.shape
    t = torch.tensor(trajectory.times[:-1]).repeat_interleave(K)
    s = torch.tensor(trajectory.times[1:]).repeat_interleave(K)
    mask = torch.ones(steps * K, 7, dtype=torch.bool)
    with torch.no_grad():
        step = policy.transition(trajectory.z[:-1].flatten(0, 1), t, s, mask)
        again = policy.log_prob(trajectory.z[1:].flatten(0, 1), step.mu, step.sigma, mask)
    ratio = (again - trajectory.log_prob.flatten()).exp()
    assert float((ratio - 1).abs().max()) < 1e-4
