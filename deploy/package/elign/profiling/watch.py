"""Real iterations of a run that is assembled, with readings of all processes before, between and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from elign.common.errors import RolloutError
from elign.common.network_cost import NetworkShape
from elign.common.policy import PolicySpec
from elign.common.rollout import RolloutPlan
from elign.launch import Assembly
from elign.learner.run_directory import RunDirectory
from elign.profiling.readings import Readings, read_all

WARM_UP_ITERATIONS = 1
"""Left out: in the first, code and weights are loaded, and threads and buffers made."""


@dataclass
class Seen:
    """One entry for each profiled iteration: metrics, seconds from outside, plans, and rows by size."""

    rows: list[dict[str, float]] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    plans: list[list[RolloutPlan]] = field(default_factory=list)
    rows_by_size: list[dict[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Watched:
    """What was seen. at_rest, warm, done: readings before the first iteration, after the warm-up, at last."""

    spec: PolicySpec
    seen: Seen
    at_rest: Readings
    warm: Readings
    done: Readings

    @property
    def shape(self) -> NetworkShape:
        return NetworkShape.of(self.spec)

    @property
    def iterations(self) -> int:
        return len(self.seen.rows)

    @property
    def plans(self) -> list[RolloutPlan]:
        """Of all profiled iterations."""
        return [plan for plans in self.seen.plans for plan in plans]

    def total(self, name: str) -> float:
        """A figure of ``metrics.parquet`` summed over the iterations."""
        return sum(row[name] for row in self.seen.rows)


def watch(
    parts: Assembly, directory: RunDirectory, iterations: int, on_iteration: Callable[[int, int], None]
) -> Watched:
    """One iteration to warm up, then ``iterations`` more; on_iteration: gets (done, total).

    Raises RolloutError when a process was restarted meanwhile: its figures would mean nothing.
    """
    total, seen = WARM_UP_ITERATIONS + iterations, Seen()
    at_rest = warm = read_all(parts)
    for done in range(1, total + 1):
        wall = _iterate(parts, directory)
        on_iteration(done, total)
        if done <= WARM_UP_ITERATIONS:
            warm = read_all(parts)
            continue
        seen.rows.append(parts.algorithm.iteration_metrics)
        seen.walls.append(wall)
        seen.plans.append([scored.trajectory.plan for scored in parts.algorithm.scored])
        seen.rows_by_size.append(parts.algorithm.rows_by_size)
    final = read_all(parts)
    if final.process_ids != at_rest.process_ids:
        raise RolloutError(
            "an actor or a replica of the reward server was restarted during the profile; run it again"
        )
    return Watched(parts.algorithm.spec, seen, at_rest, warm, final)


def _iterate(parts: Assembly, directory: RunDirectory) -> float:
    """As a training run does it; returns seconds."""
    if parts.stop.requested:
        raise KeyboardInterrupt
    started = time.perf_counter()
    parts.algorithm.train()
    directory.log(parts.algorithm.iteration_metrics, parts.algorithm.scored)
    return time.perf_counter() - started
