"""Which nodes Ray wants to empty: the one place that knows Ray's private way of telling (Ray 2.60)."""

from __future__ import annotations

from ray._private.state import state


def draining_nodes() -> frozenset[str]:
    """Hexadecimal ids of the nodes that are being drained or will be preempted."""
    return frozenset(state.get_draining_nodes())
