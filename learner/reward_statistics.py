"""Mean and quantiles of an iteration's raw rewards by channel, for dashboards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from elign.common.rollout import ScoredTrajectory

_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def reward_statistics(scored: Sequence[ScoredTrajectory]) -> Iterator[tuple[str, str, float]]:
    """(channel, statistic, value); a channel without a judged sample is left out.

    channel: force, energy or stability. statistic: mean, p10, p50 or p90, over samples (and steps).
    """
    rewards = [s.rewards for s in scored]
    channels = {
        "force": [r.force[r.force_mask] for r in rewards],
        "energy": [r.energy[r.energy_mask] for r in rewards],
        "stability": [r.stability[r.stability_mask] for r in rewards],
    }
    for channel, parts in channels.items():
        values = torch.cat([part.flatten().double() for part in parts])
        if not len(values):
            continue
        yield channel, "mean", float(values.mean())
        for name, quantile in _QUANTILES.items():
            yield channel, name, float(values.quantile(quantile))
