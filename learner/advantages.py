"""Group-relative advantages with the channels kept apart (FED-GRPO).

Each channel is z-scored within the group (and within the step, where it has steps) over the samples whose
reward is known; only then are the channels weighed and added:

    A_t = w_F A_F + w_E A_E,t + w_S A_S, clipped at +-advantage_clip.

A group is normalized whole and alone, so nothing can leak from one group into another.

The paper's ablation, plain GRPO, adds first and normalizes the sum: ``mixed_advantages``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elign.common.scoring import RewardAnswer

STD_EPSILON = 1e-8


@dataclass(frozen=True)
class ChannelWeights:
    """w_F, w_E and w_S; a channel of weight 0 is left out altogether, its failures too."""

    force: float
    energy: float
    stability: float


@dataclass(frozen=True)
class Advantages:
    """values: [T', K] float32, 0 where not valid. valid: [T', K] bool, False: keep out of the loss."""

    values: Tensor
    valid: Tensor


def normalize(rewards: Tensor, mask: Tensor) -> Tensor:
    """z-scores of ``rewards`` [..., K] along the last dimension, among entries that ``mask`` [..., K] keeps.

    Population standard deviation plus 1e-8. A constant group gives exactly 0, as do masked entries. Computed
    in float64, returned in float32.
    """
    values = torch.where(mask, rewards.double(), 0.0)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    deviation = torch.where(mask, values - values.sum(-1, keepdim=True) / count, 0.0)
    std = (deviation.square().sum(-1, keepdim=True) / count).sqrt()
    highest = torch.where(mask, values, -torch.inf).amax(-1, keepdim=True)
    lowest = torch.where(mask, values, torch.inf).amin(-1, keepdim=True)
    # the mean of equal numbers need not be that number in floating point: test constancy on the rewards
    scored = torch.where(highest > lowest, deviation / (std + STD_EPSILON), 0.0)
    return scored.float()


def group_advantages(rewards: RewardAnswer, weights: ChannelWeights, clip: float) -> Advantages:
    """Advantages of one group's K samples at its T' transitions.

    A channel that does not know a sample's reward (at that step) adds 0 to it; where no channel of positive
    weight knows, the entry is not valid.
    """
    total = torch.zeros(rewards.energy.shape)
    valid = torch.zeros(rewards.energy.shape, dtype=torch.bool)
    for weight, reward, mask in _channels(rewards, weights):
        total = total + weight * normalize(reward, mask)
        valid = valid | mask
    return Advantages(torch.where(valid, total.clamp(-clip, clip), 0.0), valid)


def mixed_advantages(rewards: RewardAnswer, weights: ChannelWeights, clip: float) -> Advantages:
    """The same with one normalization, of the weighted sum of the channels.

    Sums are only comparable where every channel of positive weight knows; elsewhere the entry is not valid.
    """
    total = torch.zeros(rewards.energy.shape, dtype=torch.float64)
    valid = torch.ones(rewards.energy.shape, dtype=torch.bool)
    channels = _channels(rewards, weights)
    for weight, reward, mask in channels:
        total = total + weight * reward
        valid = valid & mask
    valid = valid & bool(channels)
    return Advantages(normalize(total, valid).clamp(-clip, clip), valid)


def _channels(rewards: RewardAnswer, weights: ChannelWeights) -> list[tuple[float, Tensor, Tensor]]:
    """(weight, rewards, mask) of each channel of positive weight; [K] or [T', K]."""
    channels = [
        (weights.force, rewards.force, rewards.force_mask),
        (weights.energy, rewards.energy, rewards.energy_mask),
        (weights.stability, rewards.stability, rewards.stability_mask),
    ]
    return [channel for channel in channels if channel[0] > 0]
