"""What the reward server reports of itself while it works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from elign.common.meter import Meter
from elign.common.metric_registry import (
    BATCHES,
    EVALUATED,
    FORCE_FIELD_SECONDS,
    LATENCY,
    QUERIES,
    QUEUE_LENGTH,
    REPLICAS,
    REPLICAS_REPLACED,
)
from elign.reward_server.dispatcher import DispatchStats
from elign.reward_server.evaluation_queue import QueueStats

REPORT_EVERY_S = 2.0


class ServerMetrics:
    """Latency of each query as it is answered; the rest from statistics, now and then."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counted: dict[tuple[str, ...], float] = {}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The block is one query."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._meter.observe(LATENCY, time.monotonic() - begin)

    def report(self, dispatch: DispatchStats, replicas: QueueStats) -> None:
        """Counts since the server began."""
        self._meter.set(QUEUE_LENGTH, dispatch.waiting)
        self._meter.set(REPLICAS, len(dispatch.replicas))
        self._grow(REPLICAS_REPLACED, dispatch.replaced)
        self._grow(QUERIES, dispatch.answered, outcome="answered")
        self._grow(QUERIES, dispatch.failed, outcome="failed")
        self._grow(BATCHES, replicas.batches)
        self._grow(EVALUATED, replicas.evaluated)
        self._grow(FORCE_FIELD_SECONDS, replicas.seconds)

    def _grow(self, name: str, total: float, **tags: str) -> None:
        """A total that falls is that of fewer replicas: nothing is counted then."""
        key = (name, *tags.values())
        self._meter.add(name, max(0.0, total - self._counted.get(key, 0.0)), **tags)
        self._counted[key] = total
