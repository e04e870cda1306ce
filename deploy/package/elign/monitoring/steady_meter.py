"""Gauges that stay: Ray 2.60 forgets one that is not set for 20 seconds, and an iteration may take hours.

with SteadyMeter(meter) as steady:
    steady.set("elign_kl", 0.02)       # and again every few seconds until the block ends
"""

from __future__ import annotations

import threading
from typing import Self

from elign.common.meter import Meter

EVERY_S = 5.0


class SteadyMeter:
    """A ``Meter`` that sets the gauges of another one again and again, from a thread of its own."""

    def __init__(self, meter: Meter, every_s: float = EVERY_S) -> None:
        self._meter, self._every_s = meter, every_s
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="steady-meter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """From now on, all gauges are forgotten."""
        self._ended.set()
        self._thread.join()

    def set(self, name: str, value: float, **tags: str) -> None:
        with self._lock:
            self._meter.set(name, value, **tags)
            self._gauges[name, tuple(tags.items())] = value

    def add(self, name: str, value: float, **tags: str) -> None:
        self._meter.add(name, value, **tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        self._meter.observe(name, value, **tags)

    def _repeat(self) -> None:
        while not self._ended.wait(self._every_s):
            with self._lock:
                for (name, tags), value in self._gauges.items():
                    self._meter.set(name, value, **dict(tags))
