"""Pieces of PromQL that dashboards and alerts share."""

from __future__ import annotations


def grown(counter: str, window: str, matchers: str = "") -> str:
    """By how much a counter has grown, by run; window: as in "15m", matchers: as in 'outcome="failed"'.

    Unlike increase() it also counts the first value of a counter that was not there before.
    """
    series = f"{counter}{{{matchers}}}" if matchers else counter
    total, before = f"sum by (run) ({series})", f"sum by (run) ({series} offset {window})"
    return f"({total} - ({before} or {total} * 0))"
