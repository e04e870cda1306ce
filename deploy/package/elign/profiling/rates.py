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
    update_s = sum(row["time_update_s"] for row in watched.seen.rows) * learner_threads(config)
    sampling = (_sampling_cost(config, watched), watched.actor_seconds("sampling_s"))
    update = (_update_cost(config, watched), update_s)
    return (
        _rate("sampling", *sampling, watched.iterations, ceilings[device_of(config.rollout)]),
        _rate("update", *update, watched.iterations, ceilings[learner_device(config)]),
    )


def _rate(name: str, cost: Cost, seconds: float, iterations: int, ceilings: DeviceCeilings) -> PhaseRate:
    """One iteration's part of what all of them took."""
    part = Cost(cost.flops // iterations, cost.bytes // iterations)
    return PhaseRate(name, part, seconds / iterations, ceilings)


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
    devices = {device_of(config.rollout), learner_device(config)}
    return {device: measure_ceilings(device, rows=rows, hidden=watched.shape.hidden) for device in devices}
