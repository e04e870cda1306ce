"""A profile as data: where an iteration's time went, what each process used, how near the ceilings it came.

Plain arithmetic on measured figures; times are seconds an iteration, averaged over the profiled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from elign.common.device_ceilings import DeviceCeilings
from elign.common.network_cost import Cost

PROFILE_SCHEMA = "elign.profile/1"


@dataclass(frozen=True)
class IterationTimes:
    """Seconds of one iteration on the driver's clock; wall is the sum of the others.

    rest: the driver's figures (stability, SMILES), logging, and RLlib.
    """

    wall: float
    broadcast: float
    rollout: float
    advantages: float
    update: float
    rest: float


@dataclass(frozen=True)
class RolloutTimes:
    """The rollout's seconds as the average actor spent them. idle: no plan left, or an answer on its way."""

    sampling: float
    waiting_for_rewards: float
    idle: float


@dataclass(frozen=True)
class ProcessProfile:
    """One process, or the mean of several alike.

    busy, waiting, idle: shares of the iteration; waiting: for rewards, None for who does not wait for any.
    cpu_seconds: processor time an iteration, as a mean. rest_bytes: resident before the first iteration;
    peak_bytes: at most since, of the process that grew most. predicted_bytes: growth by the formula, None
    where there is none.
    """

    name: str
    count: int
    busy: float
    waiting: float | None
    cpu_seconds: float
    rest_bytes: int
    peak_bytes: int
    predicted_bytes: int | None
    gpu_peak_bytes: int

    @property
    def idle(self) -> float:
        return 1.0 - self.busy - (self.waiting or 0.0)

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "idle": self.idle}


@dataclass(frozen=True)
class PhaseRate:
    """Arithmetic of a phase in one iteration.

    cost: what the matrix products of the network need at least, without padding. seconds: of its threads
    together. cpu_seconds: for how many of these they were on a processor; None on a GPU.
    """

    name: str
    cost: Cost
    seconds: float
    cpu_seconds: float | None
    ceilings: DeviceCeilings

    @property
    def flops_rate(self) -> float:
        """FLOP/s of a thread."""
        return self.cost.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_rate(self) -> float:
        """bytes/s of a thread, by the lower bound of the bytes moved."""
        return self.cost.bytes / self.seconds if self.seconds else 0.0

    @property
    def share_on_core(self) -> float | None:
        """Of its seconds, what a thread spent on a processor."""
        return self.cpu_seconds / self.seconds if self.cpu_seconds and self.seconds else None

    @property
    def share_of_ceiling(self) -> float:
        """Of the rate of products of the network's size."""
        return self.flops_rate / self.ceilings.product_flops

    @property
    def share_of_ceiling_on_core(self) -> float | None:
        """The same while on a processor, which other programs do not change."""
        return None if self.share_on_core is None else self.share_of_ceiling / self.share_on_core

    def json(self) -> dict[str, Any]:
        """The measured figures and the shares of the ceilings."""
        return {
            "flops": self.cost.flops,
            "bytes": self.cost.bytes,
            "thread_seconds": self.seconds,
            "flops_per_second": self.flops_rate,
            "bytes_per_second": self.bytes_rate,
            "cpu_seconds": self.cpu_seconds,
            "share_of_product_ceiling": self.share_of_ceiling,
            "share_of_product_ceiling_on_core": self.share_of_ceiling_on_core,
            "share_of_square_ceiling": self.flops_rate / self.ceilings.square_flops,
            "share_of_bandwidth": self.bytes_rate / self.ceilings.bandwidth,
            "ceilings": asdict(self.ceilings),
        }


@dataclass(frozen=True)
class TrainingProfile:
    """Everything ``elign profile`` shows and saves.

    store_bytes: in Ray's object store at the end; store_bytes_moved: put into it in an iteration.
    """

    iterations: int
    warm_up_iterations: int
    times: IterationTimes
    rollout: RolloutTimes
    processes: tuple[ProcessProfile, ...]
    store_bytes: int
    store_bytes_moved: int
    rates: tuple[PhaseRate, ...]
    machine: dict[str, Any]
    config: dict[str, Any]

    def json(self) -> dict[str, Any]:
        """The saved layout: {"schema", "machine", "iterations", "times", "rollout", "processes", ...}.

        Seconds, bytes, FLOP, and shares between 0 and 1.
        """
        return {
            "schema": PROFILE_SCHEMA,
            "machine": self.machine,
            "iterations": self.iterations,
            "warm_up_iterations": self.warm_up_iterations,
            "times": asdict(self.times),
            "rollout": asdict(self.rollout),
            "processes": {process.name: process.json() for process in self.processes},
            "object_store": {"bytes": self.store_bytes, "bytes_moved": self.store_bytes_moved},
            "arithmetic": {rate.name: rate.json() for rate in self.rates},
            "config": self.config,
        }


def iteration_times(rows: Sequence[Mapping[str, float]], walls: Sequence[float]) -> IterationTimes:
    """rows: metrics of the iterations; walls: their seconds from outside."""
    names = ("broadcast", "rollout", "advantages", "update")
    parts = {name: mean(row[f"time_{name}_s"] for row in rows) for name in names}
    wall = mean(walls)
    return IterationTimes(wall=wall, rest=wall - sum(parts.values()), **parts)


def rollout_times(rows: Sequence[Mapping[str, float]], num_actors: int) -> RolloutTimes:
    """What ``num_actors`` did during the rollout, on average."""
    sampling = mean(row["sampling_s"] for row in rows) / num_actors
    waiting = mean(row["reward_wait_s"] for row in rows) / num_actors
    return RolloutTimes(sampling, waiting, mean(row["time_rollout_s"] for row in rows) - sampling - waiting)
