"""Line charts as inline SVG: raw values thin, smoothed ones bold, colours from the page's CSS variables.

Values that are NaN leave gaps. The data travel in attributes, so that the page's script can show them under
the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 380, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 30
_COLOURS = 7
_MAX_POINTS = 400
_LOG_SPAN = 50.0
"""A chart that may be logarithmic is, once the largest value is this many times the smallest."""


@dataclass(frozen=True)
class Chart:
    """What is drawn together.

    series: label -> column. unit: "%" shows fractions as percent. note: a line of help below.
    """

    title: str
    series: Mapping[str, str]
    unit: str = ""
    note: str = ""
    may_be_log: bool = False


@dataclass(frozen=True)
class _Frame:
    """Maps data to the drawing: x linear, y linear or logarithmic."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (self._scale(value) - self._scale(low)) / (self._scale(high) - self._scale(low))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def draw_chart(chart: Chart, iterations: np.ndarray, columns: Mapping[str, np.ndarray]) -> str:
    """A ``<figure>``. iterations: [n] ascending. columns: name -> [n], some value of the chart's finite."""
    factor = 100.0 if chart.unit == "%" else 1.0
    x = thin_out(iterations.astype(np.float64))
    raw = [thin_out(columns[name] * factor) for name in chart.series.values()]
    frame = _frame(x, raw, may_be_log=chart.may_be_log)
    parts = [_axes(frame)]
    for i, values in enumerate(raw):
        smooth = smoothed(values)
        parts.append(f'<path class="raw s{i % _COLOURS}" d="{_path(frame, x, values)}"/>')
        parts.append(f'<path class="smooth s{i % _COLOURS}" d="{_path(frame, x, smooth)}"/>')
    parts.append(f'<line class="cursor" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    return (
        f'<figure class="chart"><figcaption><b>{escape(chart.title)}</b>{_unit(chart, frame)}{_legend(chart)}'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}" '
        f'data-chart="{_data(chart, frame, x, raw)}">{"".join(parts)}</svg>'
        f'<p class="note">{escape(chart.note)}</p></figure>'
    )


def smoothed(values: np.ndarray) -> np.ndarray:
    """[n] centred moving average over about a tenth of the values; NaN only where its whole window is."""
    half = max(len(values) // 20, 1)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    total = counts[high] - counts[low]
    means: np.ndarray = np.divide(
        sums[high] - sums[low], total, out=np.full(len(values), np.nan), where=total > 0
    )
    return means


def thin_out(values: np.ndarray) -> np.ndarray:
    """At most a few hundred values, each the mean of its neighbours' finite ones."""
    if len(values) <= _MAX_POINTS:
        return values
    means = []
    for part in np.array_split(values, _MAX_POINTS):
        kept = part[np.isfinite(part)]
        means.append(kept.mean() if len(kept) else np.nan)
    return np.array(means)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high]."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.7 * rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(x: np.ndarray, series: Sequence[np.ndarray], *, may_be_log: bool) -> _Frame:
    every = np.concatenate(series)
    finite = every[np.isfinite(every)]
    low, high = float(finite.min()), float(finite.max())
    x_range = (float(x[0]), float(x[-1])) if len(x) > 1 else (float(x[0]) - 0.5, float(x[0]) + 0.5)
    if may_be_log and low > 0 and high > _LOG_SPAN * low:
        return _Frame(x_range, (low / 1.3, high * 1.3), log=True)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    bottom = 0.0 if 0 <= low < margin else low - margin
    return _Frame(x_range, (bottom, high + margin), log=False)


def _axes(frame: _Frame) -> str:
    low, high = frame.y_range
    if frame.log:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        y_ticks = [10.0**p for p in powers][:: max(len(powers) // 5, 1)] or [low, high]
    else:
        y_ticks = ticks(low, high)
    parts = []
    for value in y_ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number_text(value)}</text>')
    for value in ticks(*frame.x_range, about=5):
        if value == int(value):
            place = f'x="{frame.x(value):.1f}" y="{_HEIGHT - 10}"'
            parts.append(f'<text {place} text-anchor="middle">{int(value)}</text>')
    return "".join(parts)


def _path(frame: _Frame, x: np.ndarray, values: np.ndarray) -> str:
    """SVG path; a gap where a value is NaN, and a dot (a line of no length) where it stands alone."""
    words, pen_down = [], False
    for at, value in zip(x, values, strict=True):
        if not math.isfinite(value):
            pen_down = False
            continue
        point = f"{frame.x(at):.1f} {frame.y(value):.1f}"
        words.append(f"L{point}" if pen_down else f"M{point}L{point}")
        pen_down = True
    return "".join(words)


def _unit(chart: Chart, frame: _Frame) -> str:
    words = [word for word in (chart.unit, "logarithmic" if frame.log else "") if word]
    return f' <span class="unit">{escape(", ".join(words))}</span>' if words else ""


def _legend(chart: Chart) -> str:
    if len(chart.series) == 1:
        return ""
    items = (
        f'<span class="key s{i % _COLOURS}">{escape(label)}</span>' for i, label in enumerate(chart.series)
    )
    return f'<span class="legend">{"".join(items)}</span>'


def _data(chart: Chart, frame: _Frame, x: np.ndarray, series: Sequence[np.ndarray]) -> str:
    def plain(values: np.ndarray) -> list[float | None]:
        return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values]

    document = {
        "left": _LEFT,
        "width": _WIDTH - _LEFT - _RIGHT,
        "range": frame.x_range,
        "labels": list(chart.series),
        "unit": chart.unit,
        "x": [float(f"{v:.6g}") for v in x],
        "y": [plain(values) for values in series],
    }
    return escape(json.dumps(document, separators=(",", ":")), quote=True)


def number_text(value: float) -> str:
    """A tick's label: six digits, powers of ten where it is very large or small."""
    text = f"{value:.6g}"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", "\u2212")
