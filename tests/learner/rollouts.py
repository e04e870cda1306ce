"""Small policies and made-up rollouts for the learner's tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan, ScoredTrajectory
from elign.common.sampling import sample_group
from elign.common.scoring import RewardAnswer

SIZES = {5: 3, 9: 4, 14: 2, 18: 3, 25: 1}


def tiny_policy(seed: int = 0, **overrides: object) -> DiffusionPolicy:
    """A random network whose samples stay of molecular size.

    Its schedule keeps some signal at the start, and its moves are small: an untrained network would blow up
    what is all noise.
    """
    torch.manual_seed(seed)
    settings = {"hidden": 16, "num_layers": 2, "coords_range": 0.5, "normalization_factor": 10.0}
    schedule = {"noise_precision": 0.01, "size_histogram": SIZES}
    spec = PolicySpec.model_validate(settings | schedule | overrides)
    policy = DiffusionPolicy(spec)
    for parameter in policy.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return policy.eval()


def random_rewards(num_steps: int, num_samples: int, seed: int) -> RewardAnswer:
    """Every reward known, all different."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.ones(num_samples, dtype=torch.bool)
    force = -torch.rand(num_samples, generator=generator)
    return RewardAnswer(
        force=force,
        force_mask=known,
        energy=torch.randn(num_steps, num_samples, generator=generator),
        energy_mask=known.expand(num_steps, -1),
        stability=torch.rand(num_samples, generator=generator),
        stability_mask=known,
        rms_force=-force,
        formation_energy=torch.randn(num_samples, generator=generator),
        stable=known,
        failures=(None,) * num_samples,
    )


def roll_out_groups(
    policy: DiffusionPolicy, sizes: Sequence[int], *, num_samples: int = 3, num_steps: int = 8
) -> list[ScoredTrajectory]:
    """One scored group for each size, half of the steps shared."""
    scored = []
    for group, size in enumerate(sizes):
        context = 0.5 if policy.spec.conditioning else None
        trajectory = sample_group(
            policy,
            RolloutPlan(group, size, num_samples, seed=group, context=context),
            num_steps=num_steps,
            shared_prefix=0.5,
            potential_steps=lambda _: (),
            policy_version=0,
        )
        rewards = random_rewards(len(trajectory.times) - 1, num_samples, seed=group)
        scored.append(ScoredTrajectory(trajectory, rewards, {"sampling": 1.0, "sampling_cpu": 0.9}))
    return scored
