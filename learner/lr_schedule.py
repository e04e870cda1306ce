"""Learning rate of an iteration: linear warm-up, then a cosine down to the final rate, where it stays."""

from __future__ import annotations

import math

from elign.common.config import LearnerSettings


def learning_rate(iteration: int, num_iterations: int, settings: LearnerSettings) -> float:
    """Rate of iteration 0, 1, ...: positive from the first on, ``final_learning_rate`` from the last on.

    Warm-up goes through lr/(w+1), 2 lr/(w+1), ... and reaches lr right after its w iterations.
    """
    peak, final, warmup = settings.learning_rate, settings.final_learning_rate, settings.warmup_iterations
    if iteration < warmup:
        return peak * (iteration + 1) / (warmup + 1)
    span = max(num_iterations - 1 - warmup, 1)
    progress = min((iteration - warmup) / span, 1.0)
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
