"""The registry's metrics through ``ray.util.metrics``, which Prometheus scrapes from Ray's nodes.

meter = RayMeter("first")
meter.set("elign_kl", 0.02)
"""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from elign.common.metric_registry import METRICS, RUN, Kind, Metric

_CLASSES = {Kind.GAUGE: Gauge, Kind.COUNTER: Counter}


class RayMeter:
    """A ``Meter`` in a process that Ray knows; ``run`` is a tag of all it reports."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._known: dict[str, Any] = {}

    def set(self, name: str, value: float, **tags: str) -> None:
        self._instrument(name, Kind.GAUGE).set(value, tags)

    def add(self, name: str, value: float, **tags: str) -> None:
        # Ray refuses to count nothing
        if value > 0:
            self._instrument(name, Kind.COUNTER).inc(value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        # a histogram of Ray's drops values below zero without a word
        if value < 0:
            raise ValueError(f"{name} is a histogram of values above zero, not {value}")
        self._instrument(name, Kind.HISTOGRAM).observe(value, tags)

    def _instrument(self, name: str, kind: Kind) -> Any:
        if name not in self._known:
            self._known[name] = _make(METRICS[name]).set_default_tags({RUN: self._run})
        if METRICS[name].kind is not kind:
            raise ValueError(f"{name} is a {METRICS[name].kind}, not a {kind}")
        return self._known[name]


def _make(metric: Metric) -> Any:
    description = f"{metric.meaning} ({metric.unit})".replace("Å", "angstrom")  # Ray takes ASCII only
    arguments = {"description": description, "tag_keys": (RUN, *metric.tags)}
    if metric.kind is Kind.HISTOGRAM:
        return Histogram(metric.name, boundaries=list(metric.buckets), **arguments)
    return _CLASSES[metric.kind](metric.name, **arguments)
