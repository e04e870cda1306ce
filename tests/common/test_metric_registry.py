"""The registry of metrics: well-formed, and its columns are found in an iteration's figures."""

from __future__ import annotations

import re

import pytest

from elign.common.metric_registry import METRICS, Kind, Metric, metrics_table


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_is_well_formed(metric: Metric) -> None:
    assert re.fullmatch(r"elign_[a-z_]+", metric.name)
    assert "run" not in metric.tags  # every metric has it
    assert not metric.name.endswith("_total")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert sorted(metric.buckets) == list(metric.buckets)
    if metric.column is not None:
        assert metric.column.count("*") == len(metric.tags)


def test_series_are_named_as_prometheus_sees_them() -> None:
    assert METRICS["elign_kl"].series == ("ray_elign_kl",)
    assert METRICS["elign_molecules"].series == ("ray_elign_molecules_total",)
    assert METRICS["elign_reward_latency_seconds"].series == (
        "ray_elign_reward_latency_seconds_bucket",
        "ray_elign_reward_latency_seconds_sum",
        "ray_elign_reward_latency_seconds_count",
    )


def test_a_star_stands_for_the_tag() -> None:
    row = {"time_update_s": 2.0, "time_rollout_s": 3.0, "time": 9.0, "kl": 0.5, "share_H": 0.4}
    assert list(METRICS["elign_phase_seconds"].values(row)) == [
        ({"phase": "update"}, 2.0),
        ({"phase": "rollout"}, 3.0),
    ]
    assert list(METRICS["elign_kl"].values(row)) == [({}, 0.5)]
    assert list(METRICS["elign_element_share"].values(row)) == [({"element": "H"}, 0.4)]
    assert list(METRICS["elign_reward"].values(row)) == []


def test_the_table_names_every_metric_once() -> None:
    table = metrics_table()
    for metric in METRICS.values():
        assert table.count(f"`{metric.series[0].removesuffix('_bucket')}`") == 1
