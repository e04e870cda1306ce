"""Whether two policies sample equally fast: timed in turns, so that a busy machine hits both alike.

speed = compare_speed(lambda: sample(before), lambda: sample(after), molecules=32)
speed.ratio.low, speed.ratio.high
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from elign.common.statistics import Interval, bootstrap

REPEATS = 10


@dataclass(frozen=True)
class Speed:
    """Milliseconds a molecule of both, by ``clock``, and trained / baseline."""

    baseline_ms: Interval
    trained_ms: Interval
    ratio: Interval
    clock: str


def compare_speed(
    baseline: Callable[[], object],
    trained: Callable[[], object],
    *,
    molecules: int,
    repeats: int = REPEATS,
    on_gpu: bool = False,
    seed: int = 0,
) -> Speed:
    """Time both ``repeats`` times, who is first changing each time; molecules: what a call samples.

    By processor time, or where a GPU does the work by the clock. Each is called once before, unmeasured.
    """
    read = time.perf_counter if on_gpu else time.process_time
    seconds = np.zeros((2, repeats))
    works = (baseline, trained)
    for work in works:
        work()
    for repeat in range(repeats):
        for which in (0, 1) if repeat % 2 == 0 else (1, 0):
            started = read()
            works[which]()
            seconds[which, repeat] = read() - started
    return speed_of(seconds / molecules, clock="wall clock" if on_gpu else "processor time", seed=seed)


def speed_of(seconds: np.ndarray, *, clock: str, seed: int = 0) -> Speed:
    """seconds: [2, R] a molecule, baseline and trained, paired."""
    first, second = (bootstrap(1e3 * values, seed=seed) for values in seconds)
    logs = bootstrap(np.log(seconds[1] / seconds[0]), seed=seed)
    low, high = math.exp(logs.low), math.exp(logs.high)
    return Speed(first, second, replace(logs, estimate=math.exp(logs.estimate), low=low, high=high), clock)


def speed_text(speed: Speed) -> str:
    """One line for people."""
    before, after, ratio = speed.baseline_ms.estimate, speed.trained_ms.estimate, speed.ratio
    return (
        f"sampling takes {before:.1f} and {after:.1f} ms a molecule ({speed.clock}), trained / baseline "
        f"{ratio.estimate:.3f} (95 % interval {ratio.low:.3f} to {ratio.high:.3f})"
    )
