"""What the driver reports of each iteration: the figures of ``metrics.parquet`` by the registry's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from elign.common.meter import Meter
from elign.common.metric_registry import ACTORS, METRICS, MOLECULES_PER_SECOND, REWARD, Kind
from elign.common.rollout import ScoredTrajectory
from elign.learner.reward_statistics import reward_statistics


def export_iteration(
    meter: Meter,
    row: Mapping[str, float],
    scored: Sequence[ScoredTrajectory],
    actors: Mapping[str, int],
) -> None:
    """Report one iteration.

    actors: how many are in each state. A gauge whose value is unknown (NaN) keeps its last one.
    """
    for metric in METRICS.values():
        report = meter.add if metric.kind is Kind.COUNTER else meter.set
        for tags, value in metric.values(row):
            if math.isfinite(value):
                report(metric.name, value, **tags)
    for channel, statistic, value in reward_statistics(scored):
        meter.set(REWARD, value, channel=channel, statistic=statistic)
    meter.set(MOLECULES_PER_SECOND, row["molecules"] / row["time_iteration_s"])
    for state, number in actors.items():
        meter.set(ACTORS, number, state=state)
