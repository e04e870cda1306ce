"""What is reported while a run works: each metric of driver and reward server, by its own name."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from elign.common.config import RewardSettings
from elign.common.metric_registry import METRICS, Kind
from elign.common.pool_status import ActorStatus, PoolStatus
from elign.common.process_usage import ProcessUsage, process_usage
from elign.learner.advantages import ChannelWeights, group_advantages
from elign.learner.gaming_watch import alarm_figures
from elign.learner.loss import UpdateStatistics
from elign.learner.reward_statistics import reward_statistics
from elign.learner.rollout_metrics import rollout_metrics
from elign.monitoring.run_exporter import RunExporter
from elign.monitoring.steady_meter import SteadyMeter
from elign.reward_server.dispatcher import DispatchStats
from elign.reward_server.evaluation_queue import QueueStats
from elign.reward_server.server_metrics import ServerMetrics
from tests.learner.rollouts import roll_out_groups, tiny_policy


class Notebook:
    """A meter that remembers, and checks names, kinds and tags as the real one does."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[str, ...], float] = {}
        self.counters: Counter[tuple[str, ...]] = Counter()
        self.observed: dict[str, list[float]] = defaultdict(list)

    def set(self, name: str, value: float, **tags: str) -> None:
        assert math.isfinite(value)
        self.gauges[self._key(name, Kind.GAUGE, tags)] = value

    def add(self, name: str, value: float, **tags: str) -> None:
        assert value >= 0
        self.counters[self._key(name, Kind.COUNTER, tags)] += value  # type: ignore[assignment]

    def observe(self, name: str, value: float, **tags: str) -> None:
        self._key(name, Kind.HISTOGRAM, tags)
        self.observed[name].append(value)

    @property
    def names(self) -> set[str]:
        return {key[0] for key in (*self.gauges, *self.counters)} | set(self.observed)

    @staticmethod
    def _key(name: str, kind: Kind, tags: dict[str, str]) -> tuple[str, ...]:
        assert METRICS[name].kind is kind
        assert set(METRICS[name].tags) == set(tags)
        return (name, *tags.values())


def _pool(lost: int) -> PoolStatus:
    up = ActorStatus(state="up", process_id=1, node_id="a", group=None)
    return PoolStatus(
        target=2, actors=(up,), waiting=0, issued=4, completed=4, rerun=0, set_aside=0, lost=lost
    )


def _server_counts(number: int) -> tuple[DispatchStats, QueueStats]:
    dispatch = DispatchStats(answered=number, failed=1, waiting=2, replaced=1, replicas={"process 1": 3})
    return dispatch, QueueStats(number, 20 * number, 10 * number, number, 0.5 * number)


def test_driver_and_reward_server_report_every_metric_of_the_registry() -> None:
    scored = roll_out_groups(tiny_policy(), [5, 9])
    weights = ChannelWeights(1.0, 0.05, 0.0)
    advantages = [group_advantages(s.rewards, weights, 5.0) for s in scored]
    for s in scored:
        s.seconds.update(sampling=1.0, sampling_cpu=1.0, rewards=1.0)
    row = {
        "iteration": 3.0,
        **rollout_metrics(scored, advantages, RewardSettings(), "qm9"),
        **UpdateStatistics.empty(4).metrics(),
        **alarm_figures({}),
        **dict.fromkeys(("watch_judge_rms_force", "watch_field_rms_force", "learning_rate"), 1.0),
        **dict.fromkeys(("policy_version", "plans_rerun", "time_update_s", "time_iteration_s"), 2.0),
        **dict.fromkeys(("policy_lag_mean", "idle_share_actors"), 0.5),
    }
    meter = Notebook()
    exporter = RunExporter(meter)
    exporter.iteration(row, scored, _pool(lost=3), [replace(process_usage(), gpu_peak_bytes=7)])
    exporter.saved()
    server = ServerMetrics(meter)
    with server.timed():
        pass
    server.report(*_server_counts(4))
    assert meter.names == METRICS.keys()
    assert meter.gauges["elign_iteration",] == 3.0
    assert meter.gauges["elign_actors", "up"] == 1
    assert meter.gauges["elign_actors", "wanted"] == 2
    assert meter.gauges["elign_learner_memory_bytes", "0", "cuda"] == 7
    assert meter.gauges["elign_molecules_per_second",] == row["molecules"] / 2.0
    assert meter.counters["elign_phase_seconds", "update"] == 2.0


def test_counters_grow_with_the_iterations_and_nan_is_left_out() -> None:
    scored = roll_out_groups(tiny_policy(), [5])
    meter = Notebook()
    exporter = RunExporter(meter)
    for turn, uniqueness in enumerate((0.5, math.nan), 1):
        row = {
            "molecules": 3.0,
            "time_iteration_s": 1.0,
            "uniqueness": uniqueness,
            "failures_not_converged": 2.0,
        }
        learner = ProcessUsage(1, 100 * turn, 200, 5.0 * turn, 0)
        exporter.iteration(row, scored, _pool(lost=turn), [learner])
    assert meter.gauges["elign_uniqueness",] == 0.5
    assert meter.counters["elign_molecules",] == 6.0
    assert meter.counters["elign_failures", "not_converged"] == 4.0
    assert meter.counters["elign_actors_lost",] == 2.0
    assert meter.counters["elign_learner_cpu_seconds", "0"] == 10.0
    assert meter.gauges["elign_learner_memory_bytes", "0", "cpu"] == 200


def test_gauges_are_set_again_until_the_block_ends_and_counters_are_not() -> None:
    meter = Notebook()
    with SteadyMeter(meter, every_s=0.01) as steady:
        steady.set("elign_kl", 0.5)
        steady.set("elign_actors", 2, state="up")
        steady.set("elign_kl", 0.7)
        steady.add("elign_molecules", 3)
        meter.gauges.clear()
        for _ in range(500):
            if len(meter.gauges) == 2:
                break
            time.sleep(0.01)
    assert meter.gauges == {("elign_kl",): 0.7, ("elign_actors", "up"): 2}
    assert meter.counters["elign_molecules",] == 3
    meter.gauges.clear()
    time.sleep(0.05)
    assert not meter.gauges


def test_a_lost_replica_takes_nothing_off_a_counter() -> None:
    meter = Notebook()
    server = ServerMetrics(meter)
    for answered in (4, 6, 1, 3):  # the third: another replica, which has done less
        server.report(*_server_counts(answered))
    assert meter.counters["elign_reward_batches",] == 4 + 2 + 0 + 2
    assert meter.gauges["elign_reward_queue_length",] == 2


def test_reward_statistics_are_those_of_the_judged_samples() -> None:
    scored = roll_out_groups(tiny_policy(), [5, 9], num_samples=4)
    found = {(c, s): value for c, s, value in reward_statistics(scored)}
    assert {channel for channel, _ in found} == {"force", "energy", "stability"}
    forces = sorted(float(f) for s in scored for f in s.rewards.force)
    assert found["force", "mean"] == pytest.approx(sum(forces) / len(forces))
    assert found["force", "p50"] == pytest.approx((forces[3] + forces[4]) / 2)
    assert forces[0] <= found["force", "p10"] <= found["force", "p90"] <= forces[-1]
