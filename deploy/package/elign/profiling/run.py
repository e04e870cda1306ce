"""A few real iterations, watched: the same Ray, pool, reward server and learner as ``elign train``.

profile = profile_training(load_config("laptop", None, []), iterations=2)
profile.json()
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from elign.common.config import TrainConfig
from elign.launch import assembled, check_settings
from elign.learner.run_directory import RunDirectory
from elign.profiling.breakdown import TrainingProfile, iteration_times, rollout_times
from elign.profiling.processes import process_profiles
from elign.profiling.rates import phase_rates
from elign.profiling.watch import WARM_UP_ITERATIONS, Watched, watch


def profile_training(
    config: TrainConfig, *, iterations: int, on_iteration: Callable[[int, int], None]
) -> TrainingProfile:
    """Run one iteration to warm up and ``iterations`` more, in a temporary run directory.

    on_iteration: gets (done, total). Raises ElignError, and KeyboardInterrupt after a signal.
    """
    check_settings(config)
    with tempfile.TemporaryDirectory(prefix="elign-profile-") as folder:
        directory = RunDirectory(Path(folder) / "run", config, resume=False)
        try:
            with assembled(config, directory.start) as parts:
                watched = watch(parts, directory, iterations, on_iteration)
        finally:
            directory.metrics.close()
    return _summarize(config, watched)


def _summarize(config: TrainConfig, watched: Watched) -> TrainingProfile:
    times = iteration_times(watched.seen.rows, watched.seen.walls)
    rollout = rollout_times(watched.seen.rows, config.actors.max)
    moved = watched.done.store_bytes_created - watched.warm.store_bytes_created
    return TrainingProfile(
        iterations=watched.iterations,
        warm_up_iterations=WARM_UP_ITERATIONS,
        times=times,
        rollout=rollout,
        processes=process_profiles(config, watched, times, rollout),
        store_bytes=watched.done.store_bytes,
        store_bytes_moved=moved // watched.iterations,
        rates=phase_rates(config, watched),
        machine=_machine(),
        config=config.model_dump(mode="json"),
    )


def _machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "architecture": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray")},
    }
