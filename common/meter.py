"""What a part of a run needs to report figures while it works; who carries them away is none of its business.

The names are those of ``metric_registry``. In a run, Ray's metrics carry them to Prometheus
(``elign.monitoring``); without a meter nothing is reported.
"""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Takes figures; an unknown name or a wrong tag is a KeyError or ValueError. Calls must be quick."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """A gauge has this value now."""
        ...

    def add(self, name: str, value: float, **tags: str) -> None:
        """A counter has grown by ``value`` >= 0."""
        ...

    def observe(self, name: str, value: float, **tags: str) -> None:
        """One more value of a histogram."""
        ...


class NoMeter:
    """Nobody listens."""

    def set(self, name: str, value: float, **tags: str) -> None: ...

    def add(self, name: str, value: float, **tags: str) -> None: ...

    def observe(self, name: str, value: float, **tags: str) -> None: ...
