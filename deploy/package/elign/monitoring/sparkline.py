"""A curve in one line of text.

>>> sparkline([0.0, 1.0, 2.0, 3.0], width=4)
'▁▃▆█'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """At most ``width`` characters, each the mean of its part of the values; a blank where none is finite."""
    means = [_mean(part) for part in _parts(values, width)]
    finite = [value for value in means if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    return "".join(_bar(value, low, high) for value in means)


def _parts(values: Sequence[float], width: int) -> list[Sequence[float]]:
    number = min(width, len(values))
    ends = [round(index * len(values) / number) for index in range(number + 1)] if number else [0]
    return [values[start:end] for start, end in pairwise(ends)]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    spread = high - low
    # what differs by rounding alone is flat
    share = (value - low) / spread if spread > 1e-6 * max(abs(low), abs(high)) else 0.5
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]
