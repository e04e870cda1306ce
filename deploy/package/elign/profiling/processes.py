"""What each process of a watched run did and used, beside what the memory formulas say it grows by."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

from elign.actors.rollout import device_of
from elign.common.config import TrainConfig
from elign.common.memory_cost import GroupSize, rollout_memory
from elign.common.policy import DiffusionPolicy
from elign.common.process_usage import ProcessUsage
from elign.common.sampling import branch_index
from elign.learner.memory_cost import UpdateSize, learner_memory
from elign.profiling.breakdown import IterationTimes, ProcessProfile, RolloutTimes
from elign.profiling.rates import learner_device, learner_threads
from elign.profiling.watch import Watched


class Usages(NamedTuple):
    """One process at rest, after the warm-up, and at the end."""

    rest: ProcessUsage
    warm: ProcessUsage
    done: ProcessUsage

    @property
    def growth(self) -> int:
        return self.done.peak_resident_bytes - self.rest.resident_bytes


def process_profiles(
    config: TrainConfig, watched: Watched, times: IterationTimes, rollout: RolloutTimes
) -> tuple[ProcessProfile, ...]:
    """Driver with learner, rollout actors, replicas of the reward server."""
    before, warm, after = watched.at_rest, watched.warm, watched.done
    replicas = list(map(Usages, before.replicas, warm.replicas, after.replicas))
    serving = (after.served.seconds - warm.served.seconds) / watched.iterations / len(after.replicas)
    return (
        ProcessProfile(
            name="driver and learner",
            busy=1 - times.rollout / times.wall,
            waiting=None,
            predicted_bytes=driver_growth(config, watched),
            **_measured([Usages(before.driver, warm.driver, after.driver)], watched.iterations),
        ),
        ProcessProfile(
            name="rollout actor",
            busy=rollout.sampling / times.wall,
            waiting=rollout.waiting_for_rewards / times.wall,
            predicted_bytes=actor_growth(config, watched),
            **_measured(list(map(Usages, before.actors, warm.actors, after.actors)), watched.iterations),
        ),
        ProcessProfile(
            name="reward server",
            busy=serving / times.wall,
            waiting=None,
            predicted_bytes=None,
            **_measured(replicas, watched.iterations),
        ),
    )


def _measured(processes: Sequence[Usages], iterations: int) -> dict[str, Any]:
    """What a ``ProcessProfile`` takes from processes that do the same."""
    largest = max(processes, key=lambda process: process.growth)
    spent = mean(process.done.cpu_seconds - process.warm.cpu_seconds for process in processes)
    return {
        "count": len(processes),
        "cpu_seconds": spent / iterations,
        "rest_bytes": largest.rest.resident_bytes,
        "peak_bytes": largest.done.peak_resident_bytes,
        "gpu_peak_bytes": max(process.done.gpu_peak_bytes for process in processes),
    }


def actor_growth(config: TrainConfig, watched: Watched) -> int:
    """By the formula, for the largest molecules that were sampled."""
    memory = rollout_memory(
        watched.shape, largest_group(config, watched), device=device_of(config.actors).type
    )
    return memory.total


def driver_growth(config: TrainConfig, watched: Watched) -> int:
    """By the formula, as if all groups had the largest molecules that were sampled."""
    size = UpdateSize(
        group=largest_group(config, watched),
        num_groups=config.rollout.groups,
        num_rows=max(sum(rows.values()) for rows in watched.seen.rows_by_size),
        minibatch_size=config.learner.minibatch_size,
        with_reference=config.learner.kl_coefficient > 0,
    )
    device, threads = learner_device(config).type, learner_threads(config)
    return learner_memory(watched.shape, size, device=device, threads=threads).total


def largest_group(config: TrainConfig, watched: Watched) -> GroupSize:
    rollout = config.rollout
    shared = branch_index(rollout.num_steps, rollout.shared_prefix)
    return GroupSize(
        num_atoms=max(plan.num_atoms for plan in watched.plans),
        num_samples=rollout.samples_per_group,
        shared_steps=shared,
        trained_steps=rollout.num_steps - shared,
        state_dim=DiffusionPolicy(watched.spec).state_dim,
    )
