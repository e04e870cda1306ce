"""What the driver reports of a run: the figures of ``metrics.parquet`` by the registry's names, and more.

exporter = RunExporter(meter)          # the run begins
exporter.iteration(row, scored, pool.status(), algorithm.usages)
exporter.saved()                       # a checkpoint is written
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from elign.actors.roster import State
from elign.common.meter import Meter
from elign.common.metric_registry import (
    ACTORS,
    ACTORS_LOST,
    LEARNER_CPU,
    LEARNER_MEMORY,
    METRICS,
    MOLECULES_PER_SECOND,
    REWARD,
    SAVED,
    STARTED,
    Kind,
)
from elign.common.pool_status import PoolStatus
from elign.common.process_usage import ProcessUsage
from elign.common.rollout import ScoredTrajectory
from elign.learner.reward_statistics import reward_statistics


class RunExporter:
    """Made when a run begins, which it reports."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counted: dict[tuple[str, ...], float] = {}
        meter.set(STARTED, time.time())

    def saved(self) -> None:
        """A checkpoint was written."""
        self._meter.set(SAVED, time.time())

    def iteration(
        self,
        row: Mapping[str, float],
        scored: Sequence[ScoredTrajectory],
        pool: PoolStatus,
        learners: Sequence[ProcessUsage],
    ) -> None:
        """Report one iteration. A gauge whose value is unknown (NaN) keeps its last one."""
        for metric in METRICS.values():
            report = self._meter.add if metric.kind is Kind.COUNTER else self._meter.set
            for tags, value in metric.values(row):
                if math.isfinite(value):
                    report(metric.name, value, **tags)
        for channel, statistic, value in reward_statistics(scored):
            self._meter.set(REWARD, value, channel=channel, statistic=statistic)
        self._meter.set(MOLECULES_PER_SECOND, row["molecules"] / row["time_iteration_s"])
        self._actors(pool)
        for number, usage in enumerate(learners):
            self._learner(str(number), usage)

    def _actors(self, pool: PoolStatus) -> None:
        found = Counter(actor.state for actor in pool.actors)
        self._meter.set(ACTORS, pool.target, state="wanted")
        for state in State:
            self._meter.set(ACTORS, found[state.value], state=state.value)
        self._grow(ACTORS_LOST, pool.lost)

    def _learner(self, learner: str, usage: ProcessUsage) -> None:
        self._meter.set(LEARNER_MEMORY, usage.resident_bytes, learner=learner, device="cpu")
        if usage.gpu_peak_bytes:
            self._meter.set(LEARNER_MEMORY, usage.gpu_peak_bytes, learner=learner, device="cuda")
        self._grow(LEARNER_CPU, usage.cpu_seconds, learner=learner)

    def _grow(self, name: str, total: float, **tags: str) -> None:
        """A total that falls is that of a new process: nothing is counted then."""
        key = (name, *tags.values())
        self._meter.add(name, max(0.0, total - self._counted.get(key, 0.0)), **tags)
        self._counted[key] = total
