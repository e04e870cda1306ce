"""Every metric that a run exports: name, kind, unit, tags and meaning, in one place.

The exporters take names and tags from here, ``deploy/METRICS.md`` is made from here, and a test holds the
Grafana dashboards and the alerts to it. Besides its own tags every metric has ``run``, the name of the run's
folder. Ray puts ``ray_`` before a name, and Prometheus' clients ``_total`` behind a counter's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

RUN = "run"
LATENCY_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Kind(StrEnum):
    """A value that goes up and down, one that only grows, or a distribution (of values above zero)."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric.

    unit: "1" for shares and numbers without a unit. column: where in ``metrics.parquet`` the driver's values
    come from; a ``*`` stands for the value of the only tag. buckets: upper bounds of a histogram.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    tags: tuple[str, ...] = ()
    column: str | None = None
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """Names in Prometheus."""
        base = f"ray_{self.name}"
        if self.kind is Kind.HISTOGRAM:
            return (f"{base}_bucket", f"{base}_sum", f"{base}_count")
        return (f"{base}_total",) if self.kind is Kind.COUNTER else (base,)

    def values(self, row: Mapping[str, float]) -> Iterator[tuple[dict[str, str], float]]:
        """(tags, value) of each column of an iteration's figures that is this metric's."""
        if self.column is None:
            return
        pattern = re.compile(re.escape(self.column).replace(r"\*", "(.+)"))
        for name, value in row.items():
            if found := pattern.fullmatch(name):
                yield dict(zip(self.tags, found.groups(), strict=True)), value


def _gauge(name: str, unit: str, meaning: str, column: str | None = None, *tags: str) -> Metric:
    return Metric(f"elign_{name}", Kind.GAUGE, unit, meaning, tags, column)


def _counter(name: str, unit: str, meaning: str, column: str | None = None, *tags: str) -> Metric:
    return Metric(f"elign_{name}", Kind.COUNTER, unit, meaning, tags, column)


ITERATION, REWARD, ACTORS = "elign_iteration", "elign_reward", "elign_actors"
STARTED, SAVED = "elign_started_time_seconds", "elign_checkpoint_time_seconds"
ACTORS_LOST = "elign_actors_lost"
LEARNER_MEMORY, LEARNER_CPU = "elign_learner_memory_bytes", "elign_learner_cpu_seconds"
MOLECULES_PER_SECOND = "elign_molecules_per_second"
QUEUE_LENGTH, REPLICAS = "elign_reward_queue_length", "elign_reward_replicas"
REPLICAS_REPLACED, QUERIES = "elign_reward_replicas_replaced", "elign_reward_queries"
LATENCY, BATCHES = "elign_reward_latency_seconds", "elign_reward_batches"
EVALUATED, FORCE_FIELD_SECONDS = "elign_reward_molecules_evaluated", "elign_reward_force_field_seconds"

_DRIVER = (
    _gauge("iteration", "1", "Iterations completed", "iteration"),
    _gauge("started_time_seconds", "s", "When the run began, or went on; seconds since 1970"),
    _gauge("checkpoint_time_seconds", "s", "When the last checkpoint was written; seconds since 1970"),
    _gauge(
        "reward",
        "1",
        "Raw reward of an iteration's samples; statistic is mean, p10, p50 or p90",
        None,
        "channel",
        "statistic",
    ),
    _gauge("objective", "1", "Weighted rewards; chooses the best policy", "objective"),
    _gauge(
        "rms_force",
        "eV/Å",
        "RMS force of the samples; statistic is mean (clipped) or median",
        "rms_force_*",
        "statistic",
    ),
    _gauge("formation_energy", "eV/atom", "Mean formation energy of the samples", "formation_energy_mean"),
    _gauge("atom_stability", "1", "Share of atoms with a right valence", "atom_stability"),
    _gauge("molecule_stability", "1", "Share of molecules whose atoms all are stable", "molecule_stability"),
    _gauge("validity", "1", "Share of molecules that RDKit accepts", "validity"),
    _gauge("uniqueness", "1", "Share of the valid molecules that are different", "uniqueness"),
    _gauge("one_piece", "1", "Share of molecules in one piece", "one_piece"),
    _gauge("element_share", "1", "Part of all atoms", "share_*", "element"),
    _gauge("loss", "1", "Mean loss of the update's rows", "loss"),
    _gauge("kl", "1", "KL divergence to the reference policy", "kl"),
    _gauge("clip_fraction", "1", "Share of transitions outside the clip range", "clip_fraction"),
    _gauge(
        "ratio",
        "1",
        "Ratio of new to behaviour probability; statistic is mean or max_deviation (from 1)",
        "ratio_*",
        "statistic",
    ),
    _gauge("log_ratio_squared", "1", "Mean squared log-ratio; shows trouble first", "log_ratio_squared"),
    _gauge("gradient_norm", "1", "Mean gradient norm before clipping", "grad_norm"),
    _gauge("learning_rate", "1", "Learning rate of the iteration", "learning_rate"),
    _gauge("policy_version", "1", "Version of the policy that sampled", "policy_version"),
    _gauge(
        "policy_lag",
        "1",
        "Iterations by which the sampling policy was behind; statistic is mean or max",
        "policy_lag_*",
        "statistic",
    ),
    _gauge("idle_share", "1", "Idle part of the time; who is actors or learner", "idle_share_*", "who"),
    _gauge("alarm", "1", "1 while the watch on gaming raises this alarm", "alarm_*", "alarm"),
    _gauge(
        "watch_rms_force",
        "eV/Å",
        "RMS force of some samples; judge is field (gives rewards) or judge",
        "watch_*_rms_force",
        "judge",
    ),
    _gauge("molecules_per_second", "1/s", "Molecules sampled, judged and learned from in an iteration"),
    _counter("molecules", "1", "Molecules sampled", "molecules"),
    _counter("failures", "1", "Molecules without a reward, by reason", "failures_*", "kind"),
    _counter(
        "phase_seconds", "s", "Time of the driver by phase; iteration is all of it", "time_*_s", "phase"
    ),
    _counter("optimizer_steps", "1", "Optimizer steps", "optimizer_steps"),
    _counter(
        "skipped_optimizer_steps",
        "1",
        "Steps left out for a gradient that is not finite",
        "skipped_optimizer_steps",
    ),
    _counter("rows_left_out", "1", "Transitions left out because their ratio ran away", "rows_left_out"),
    _counter("plans", "1", "Groups that were rerun, set_aside or dropped_stale", "plans_*", "fate"),
    _gauge("actors", "1", "Rollout actors: wanted, starting, up, suspect, draining", None, "state"),
    _counter("actors_lost", "1", "Rollout actors that died or hung; each is replaced"),
    _gauge(
        "learner_memory_bytes",
        "bytes",
        "Memory of a learner's process; device is cpu (resident) or cuda (most in tensors so far)",
        None,
        "learner",
        "device",
    ),
    _counter("learner_cpu_seconds", "s", "Processor time of a learner's process", None, "learner"),
)

_REWARD_SERVER = (
    _gauge("reward_queue_length", "1", "Queries that wait for a replica"),
    _gauge("reward_replicas", "1", "Replicas that are up"),
    _counter("reward_replicas_replaced", "1", "Replicas started in place of lost ones"),
    _counter("reward_queries", "1", "Queries; outcome is answered or failed", None, "outcome"),
    Metric(
        LATENCY,
        Kind.HISTOGRAM,
        "s",
        "From a query's arrival at the reward server to its answer",
        buckets=LATENCY_BUCKETS_S,
    ),
    _counter("reward_batches", "1", "Batches given to the force field"),
    _counter("reward_molecules_evaluated", "1", "Molecules given to the force field, repeats left out"),
    _counter("reward_force_field_seconds", "s", "Time in the force field, summed over replicas"),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (*_DRIVER, *_REWARD_SERVER)}


def metrics_table() -> str:
    """The registry as a Markdown table."""
    lines = ["| metric in Prometheus | kind | unit | tags | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        name = metric.series[0].removesuffix("_bucket")
        tags = ", ".join(f"`{tag}`" for tag in (RUN, *metric.tags))
        lines.append(f"| `{name}` | {metric.kind} | {metric.unit} | {tags} | {metric.meaning} |")
    return "\n".join(lines) + "\n"
