"""Distributions laid over each other as inline SVG, in the page's colours.

draw_distributions("RMS force", "eV/Å", {"baseline": before, "trained": after}, grid)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

import numpy as np

from elign.learner.line_chart import number_text, ticks

_WIDTH, _HEIGHT = 380, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 14, 14, 10, 28
COLOURS = {"baseline": "s5", "trained": "s0", "data": "s2"}
_BINS = 30


def draw_values(title: str, unit: str, values: Mapping[str, np.ndarray]) -> str:
    """A ``<figure>`` of samples [n] by set; values that are not finite are left out, the largest 2 % cut off.

    Empty where no set has two different values.
    """
    finite = {name: v[np.isfinite(v)] for name, v in values.items()}
    together = np.concatenate([*finite.values()]) if finite else np.zeros(0)
    if len(together) < 2 or np.ptp(together) == 0:
        return ""
    low, high = float(together.min()), float(np.quantile(together, 0.98))
    edges = np.linspace(low, high if high > low else float(together.max()), _BINS + 1)
    densities = {name: _histogram(v, edges) for name, v in finite.items() if len(v)}
    return draw_densities(title, unit, densities, edges)


def draw_densities(title: str, unit: str, densities: Mapping[str, np.ndarray], edges: np.ndarray) -> str:
    """A ``<figure>`` of step lines. densities: set -> [bins]. edges: [bins + 1] ascending."""
    low, span = float(edges[0]), float(edges[-1] - edges[0])
    top = max((float(d.max()) for d in densities.values()), default=0.0) or 1.0

    def x(value: float) -> float:
        return _LEFT + (value - low) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axis(x, float(edges[0]), float(edges[-1]))]
    for name, density in densities.items():
        corners = [f"M{x(edges[0]):.1f} {y(0):.1f}"]
        for left, right, value in zip(edges[:-1], edges[1:], density, strict=True):
            corners.append(f"L{x(left):.1f} {y(value):.1f}L{x(right):.1f} {y(value):.1f}")
        corners.append(f"L{x(edges[-1]):.1f} {y(0):.1f}")
        parts.append(f'<path class="smooth {COLOURS.get(name, "s3")}" d="{"".join(corners)}"/>')
    keys = "".join(f'<span class="key {COLOURS.get(name, "s3")}">{escape(name)}</span>' for name in densities)
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b> <span class="unit">{escape(unit)}</span>'
        f'<span class="legend">{keys}</span></figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg></figure>'
    )


def _axis(x: Callable[[float], float], low: float, high: float) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for value in ticks(low, high, about=6):
        place = f'x="{x(value):.1f}" y="{_HEIGHT - 10}"'
        parts.append(f'<text {place} text-anchor="middle">{number_text(value)}</text>')
    return "".join(parts)


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(values, edges)
    density: np.ndarray = counts / max(len(values), 1)
    return density
