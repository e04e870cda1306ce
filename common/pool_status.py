"""What a pool of rollout actors says of itself, and what it can be told: its size.

A run's directory is the channel (``run_control``); the pool knows only ``PoolControl``.
"""

from __future__ import annotations

from typing import Protocol

from elign.common.config import Settings


class ActorStatus(Settings):
    """One actor. state: starting, up, suspect or draining; group: what it samples, None when idle."""

    state: str
    process_id: int | None
    node_id: str | None
    group: int | None


class PoolStatus(Settings):
    """target: actors that are wanted. Plans: waiting for an actor; and since the run (re)started, issued,
    completed, given out again (rerun), and set aside. lost: actors that died or hung, since then too."""

    target: int
    actors: tuple[ActorStatus, ...]
    waiting: int
    issued: int
    completed: int
    rerun: int
    set_aside: int
    lost: int = 0


class PoolControl(Protocol):
    """Who steers a pool while it works; called often, so answers must be quick."""

    def wanted_actors(self) -> int | None:
        """The size that is wanted; None leaves it as the settings say."""
        ...

    def report(self, status: PoolStatus) -> None:
        """Hear how the pool is."""
        ...


class NoControl:
    """Leaves the pool as it is."""

    def wanted_actors(self) -> int | None:
        return None

    def report(self, status: PoolStatus) -> None:
        """Nobody listens."""
