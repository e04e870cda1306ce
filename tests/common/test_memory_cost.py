"""Promises of the rollout's memory formula: its parts are what the code keeps."""

from __future__ import annotations

from elign.common.memory_cost import (
    GroupSize,
    noise_bytes,
    pairs_at_once,
    rollout_memory,
    trajectory_bytes,
)
from elign.common.network_cost import NetworkShape
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan
from elign.common.sampling import sample_group

SHAPE = NetworkShape(features=7, hidden=64, num_layers=5, attention=True, num_radial=0)


def test_a_trajectory_has_the_bytes_of_the_formula() -> None:
    policy = DiffusionPolicy(PolicySpec(hidden=8, num_layers=1))
    trajectory = sample_group(
        policy,
        RolloutPlan(0, 7, 5, seed=0),
        num_steps=10,
        shared_prefix=0.4,
        potential_steps=lambda _: (),
        policy_version=0,
    )
    group = GroupSize(num_atoms=7, num_samples=5, shared_steps=4, trained_steps=6, state_dim=policy.state_dim)
    assert trajectory_bytes(group) == trajectory.z.nbytes + trajectory.log_prob.nbytes
    assert noise_bytes(group) == 4 * 7 * 9 * (5 + 6 * 5)


def test_a_piece_is_one_molecule_at_least_and_the_group_at_most() -> None:
    assert pairs_at_once(SHAPE, 1000, 24, "cpu") == 1000**2
    assert pairs_at_once(SHAPE, 2, 24, "cpu") == 24 * 2**2
    assert 2**18 // 64 < pairs_at_once(SHAPE, 20, 1000, "cpu") <= 2**19 // 64


def test_memory_grows_with_what_it_should() -> None:
    small = GroupSize(num_atoms=20, num_samples=16, shared_steps=25, trained_steps=25, state_dim=9)
    longer = GroupSize(num_atoms=20, num_samples=16, shared_steps=25, trained_steps=400, state_dim=9)
    before, after = (rollout_memory(SHAPE, group, device="cpu") for group in (small, longer))
    assert after.weights == before.weights
    assert after.step == before.step
    assert after.trajectory > 15 * before.trajectory
    assert after.total == after.weights + after.noise + after.trajectory + after.step
