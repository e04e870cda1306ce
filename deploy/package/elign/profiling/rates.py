"""The arithmetic of a watched run beside the ceilings of the device it ran on."""

from __future__ import annotations

from statistics import median

import torch

from elign.actors.rollout import device_of
from elign.common.config import TrainConfig
from elign.common.device_ceilings import DeviceCeilings, measure_ceilings
from elign.common.network_cost import Cost, sampling_cost, update_cost
from elign.profiling.breakdown import PhaseRate
from elign.profiling.watch import Watched


def learner_device(config: TrainConfig) -> torch.device:
    """Where the learner computes."""
    return torch.device("cuda" if config.learner.num_gpus > 0 else "cpu")


def learner_threads(config: TrainConfig) -> int:
    """Chunks that the learner works on at a time."""
    return torch.get_num_threads() if learner_device(config).type == "cpu" else 1


def phase_rates(config: TrainConfig, watched: Watched) -> tuple[PhaseRate, PhaseRate]:
    """Sampling and update: their analytic count over the seconds of their threads.

    The ceilings are measured here, so the run should have ended.
    """
    ceilings = _ceilings(config, watched)
    iterations, threads = watched.iterations, learner_threads(config)
    actor, learner = ceilings[device_of(config.actors)], ceilings[learner_device(config)]
    return (
        PhaseRate(
            name="sampling",
            cost=_part(_sampling_cost(config, watched), iterations),
            seconds=watched.total("sampling_s") / iterations,
            cpu_seconds=_on_cpu(watched.total("time_sampling_cpu_s") / iterations, actor),
            ceilings=actor,
        ),
        PhaseRate(
            name="update",
            cost=_part(_update_cost(config, watched), iterations),
            seconds=threads * watched.total("time_update_s") / iterations,
            cpu_seconds=_on_cpu(watched.total("time_update_cpu_s") / iterations, learner),
            ceilings=learner,
        ),
    )


def _part(cost: Cost, iterations: int) -> Cost:
    """One iteration's of what all of them cost."""
    return Cost(cost.flops // iterations, cost.bytes // iterations)


def _on_cpu(cpu_seconds: float, ceilings: DeviceCeilings) -> float | None:
    """Processor time says nothing about work on a GPU."""
    return cpu_seconds if ceilings.device == "cpu" else None


def _sampling_cost(config: TrainConfig, watched: Watched) -> Cost:
    rollout = config.rollout
    return sampling_cost(
        watched.shape, watched.plans, num_steps=rollout.num_steps, shared_prefix=rollout.shared_prefix
    )


def _update_cost(config: TrainConfig, watched: Watched) -> Cost:
    with_reference, total = config.learner.kl_coefficient > 0, Cost()
    for rows in watched.seen.rows_by_size:
        total += update_cost(watched.shape, rows, epochs=config.learner.epochs, with_reference=with_reference)
    return total


def _ceilings(config: TrainConfig, watched: Watched) -> dict[torch.device, DeviceCeilings]:
    """At the rows of a typical sampling step: the pairs of a group of middling molecules."""
    atoms = round(median(plan.num_atoms for plan in watched.plans))
    rows = config.rollout.samples_per_group * atoms**2
    devices = {device_of(config.actors), learner_device(config)}
    return {device: measure_ceilings(device, rows=rows, hidden=watched.shape.hidden) for device in devices}
