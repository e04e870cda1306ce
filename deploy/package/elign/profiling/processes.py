"""What each process of a watched run did and used, beside what the memory formulas say it grows by."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

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


def process_profiles(
    config: TrainConfig, watched: Watched, times: IterationTimes, rollout: RolloutTimes
) -> tuple[ProcessProfile, ...]:
    """Driver with learner, rollout actors, reward server."""
    before, warm, after = watched.at_rest, watched.warm, watched.done
    serving = (after.server_queue.seconds - warm.server_queue.seconds) / watched.iterations / times.wall
    rolling, sampling = times.rollout / times.wall, rollout.sampling / times.wall
    waiting = rollout.waiting_for_rewards / times.wall
    parts = (
        ("driver and learner", 1 - rolling, None, rolling, [(before.driver, warm.driver, after.driver)]),
        (
            "rollout actor",
            sampling,
            waiting,
            1 - sampling - waiting,
            list(zip(before.actors, warm.actors, after.actors, strict=True)),
        ),
        ("reward server", serving, None, 1 - serving, [(before.server, warm.server, after.server)]),
    )
    growth = {
        "rollout actor": actor_growth(config, watched),
        "driver and learner": driver_growth(config, watched),
    }
    return tuple(
        _profile(name, (busy, wait, idle), usages, watched.iterations, growth.get(name))
        for name, busy, wait, idle, usages in parts
    )


def _profile(
    name: str,
    shares: tuple[float, float | None, float],
    usages: Sequence[tuple[ProcessUsage, ProcessUsage, ProcessUsage]],
    iterations: int,
    predicted_bytes: int | None,
) -> ProcessProfile:
    """usages: of each process of this name, at rest, after the warm-up and at the end."""
    rest, _, done = max(usages, key=lambda usage: usage[2].peak_resident_bytes - usage[0].resident_bytes)
    busy, waiting, idle = shares
    return ProcessProfile(
        name=name,
        count=len(usages),
        busy=busy,
        waiting=waiting,
        idle=idle,
        cpu_seconds=mean(done.cpu_seconds - warm.cpu_seconds for _, warm, done in usages) / iterations,
        rest_bytes=rest.resident_bytes,
        peak_bytes=done.peak_resident_bytes,
        predicted_bytes=predicted_bytes,
        gpu_peak_bytes=max(done.gpu_peak_bytes for _, _, done in usages),
    )


def actor_growth(config: TrainConfig, watched: Watched) -> int:
    """By the formula, for the largest molecules that were sampled."""
    memory = rollout_memory(
        watched.shape, largest_group(config, watched), device=device_of(config.rollout).type
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
