"""Sampling one plan and asking for its rewards, as plain functions that know nothing of Ray."""

from __future__ import annotations

from functools import partial

import torch

from elign.common.config import ActorSettings, RewardSettings, RolloutSettings
from elign.common.policy import DiffusionPolicy
from elign.common.rollout import RolloutPlan, Trajectory
from elign.common.sampling import choose_potential_steps, sample_group
from elign.common.scoring import RewardQuery


def roll_out(
    policy: DiffusionPolicy,
    plan: RolloutPlan,
    rollout: RolloutSettings,
    reward: RewardSettings,
    *,
    policy_version: int,
) -> Trajectory:
    """The plan's group under ``policy``, on the CPU; the same plan and weights give the same trajectory."""
    return sample_group(
        policy,
        plan,
        num_steps=rollout.num_steps,
        shared_prefix=rollout.shared_prefix,
        potential_steps=partial(potential_steps, reward),
        policy_version=policy_version,
    )


def potential_steps(reward: RewardSettings, num_transitions: int) -> tuple[int, ...]:
    """Transitions whose starting state's potential is wanted; none without a shaped energy channel."""
    if reward.energy_weight == 0 or reward.energy_mode == "terminal":
        return ()
    return choose_potential_steps(reward.potential_schedule, num_transitions, reward.potential_evaluations)


def reward_query(trajectory: Trajectory) -> RewardQuery:
    """What the reward server must know of a trajectory."""
    return RewardQuery(
        group_id=trajectory.plan.group_id,
        molecules=trajectory.molecules,
        times=trajectory.times,
        potential_steps=trajectory.potential_steps,
        predicted=trajectory.predicted,
    )


def device_of(actors: ActorSettings) -> torch.device:
    """Where an actor with these settings samples."""
    return torch.device("cuda" if actors.num_gpus > 0 else "cpu")
