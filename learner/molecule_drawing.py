"""Ball-and-stick pictures of molecules as SVG, from 3D coordinates alone.

The molecule is turned so that its flattest side faces the viewer, a little tilted; atoms and half bonds are
painted from back to front, and what is further away fades into the page. Gradients are shared:
``gradients()`` must be on the page once.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from elign.common.datasets import dataset_of
from elign.common.molecules import Molecules
from elign.common.stability import bond_orders

_COLOURS = {1: "#f4f4f2", 6: "#6b7280", 7: "#4a72e8", 8: "#e34d46", 9: "#5cbf5a", 5: "#e8a79a", 14: "#c9a56b"}
_COLOURS |= {15: "#ef8f34", 16: "#e5c33f", 17: "#3fae5a", 35: "#a2492f", 53: "#8146b8"}
_OTHER_COLOUR = "#b48ac9"
_SIZE = 200.0
_MARGIN = 8.0
_LARGEST_SCALE = 34.0
"""Drawing units an Å; small molecules are not blown up beyond it."""
_TILT = np.deg2rad(22.0), np.deg2rad(-14.0)
_BOND_WIDTH, _BOND_GAP = 0.17, 0.2
_FOG = 0.55


@dataclass(frozen=True)
class _Shape:
    """Something to be painted: depth (larger is nearer) and its SVG."""

    depth: float
    svg: str


def gradients() -> str:
    """An invisible ``<svg>`` with one shaded gradient an element."""
    found = []
    for name, colour in [*((str(z), c) for z, c in _COLOURS.items()), ("other", _OTHER_COLOUR)]:
        shades = ((0, _mix(colour, "#ffffff", 0.65)), (0.45, colour), (1, _mix(colour, "#0b1020", 0.45)))
        stops = "".join(f'<stop offset="{at}" stop-color="{shade}"/>' for at, shade in shades)
        found.append(f'<radialGradient id="atom-{name}" cx="35%" cy="30%" r="75%">{stops}</radialGradient>')
    hidden = 'width="0" height="0" style="position:absolute" aria-hidden="true"'
    return f"<svg {hidden}><defs>{''.join(found)}</defs></svg>"


def draw_molecule(molecules: Molecules, index: int, label: str) -> str:
    """An ``<svg>`` of molecule ``index``; a note instead of a picture where coordinates are not finite."""
    mask = molecules.node_mask[index].cpu().numpy()
    numbers = molecules.atomic_numbers[index].cpu().numpy()[mask]
    positions = molecules.positions[index].cpu().double().numpy()[mask]
    if not np.isfinite(positions).all():
        middle = f'x="{_SIZE / 2}" y="{_SIZE / 2}" text-anchor="middle"'
        return _svg(f"<text {middle}>coordinates are not finite</text>", label)
    one = molecules[index : index + 1]
    orders = bond_orders(one, dataset_of(one))[0].cpu().numpy()[mask][:, mask]
    turned = facing(positions)
    radii = 0.42 * covalent_radii[numbers] + 0.12
    scale, centre = _fit(turned, radii)
    points = (turned - centre) * scale * np.array([1.0, -1.0, 1.0]) + np.array([_SIZE / 2, _SIZE / 2, 0.0])
    fog = _fading(points[:, 2])
    shapes = [_atom(int(z), p, r * scale, f) for z, p, r, f in zip(numbers, points, radii, fog, strict=True)]
    for i, j in np.argwhere(np.triu(orders, 1)):
        shapes += _bond(numbers[[i, j]], points[[i, j]], int(orders[i, j]), scale, fog[[i, j]])
    ordered = sorted(shapes, key=lambda shape: shape.depth)
    return _svg("".join(shape.svg for shape in ordered), label)


def facing(positions: np.ndarray) -> np.ndarray:
    """[n, 3] turned about its centre: longest extent along x, shortest towards the viewer, then tilted."""
    centred = positions - positions.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    if np.linalg.det(axes) < 0:  # keep the handedness: a picture must not show the mirror image
        axes[2] = -axes[2]
    about_x, about_y = _TILT
    tilt_x = np.array(
        [[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]]
    )
    tilt_y = np.array(
        [[np.cos(about_y), 0, np.sin(about_y)], [0, 1, 0], [-np.sin(about_y), 0, np.cos(about_y)]]
    )
    turned: np.ndarray = centred @ axes.T @ tilt_x.T @ tilt_y.T
    return turned


def _fit(points: np.ndarray, radii: np.ndarray) -> tuple[float, np.ndarray]:
    """(drawing units an Å, middle of the drawing) such that all balls are inside."""
    low, high = (points - radii[:, None]).min(0), (points + radii[:, None]).max(0)
    widest = float((high - low)[:2].max())
    return min((_SIZE - 2 * _MARGIN) / widest, _LARGEST_SCALE), (low + high) / 2


def _fading(depth: np.ndarray) -> np.ndarray:
    """[n] 0 for the nearest atom, up to ``_FOG`` for the furthest (less where the molecule is shallow)."""
    span = float(np.ptp(depth))
    share = (depth.max() - depth) / max(span, 60.0)
    faded: np.ndarray = _FOG * share
    return faded


def _atom(number: int, point: np.ndarray, radius: float, fog: float) -> _Shape:
    name = str(number) if number in _COLOURS else "other"
    circle = f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:.1f}"'
    tip = f"<title>{chemical_symbols[number]}</title>"
    body = f'{circle} class="atom" fill="url(#atom-{name})">{tip}</circle>'
    return _Shape(
        float(point[2]), body + (f'{circle} class="fog" opacity="{fog:.2f}"/>' if fog > 0.02 else "")
    )


def _bond(numbers: np.ndarray, ends: np.ndarray, order: int, scale: float, fog: np.ndarray) -> list[_Shape]:
    """Two halves in the colours of their atoms; parallel lines for double and triple bonds."""
    along = ends[1, :2] - ends[0, :2]
    length = float(np.hypot(*along))
    across = np.array([-along[1], along[0]]) / length if length > 0 else np.zeros(2)
    middle = ends.mean(0)
    width = _BOND_WIDTH * scale * (1.0 if order == 1 else 0.62)
    shapes = []
    for line in range(order):
        shift = (line - (order - 1) / 2) * _BOND_GAP * scale * across
        for number, end, fade in zip(numbers, ends, fog, strict=True):
            (x1, y1), (x2, y2) = end[:2] + shift, middle[:2] + shift
            place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:.1f}"'
            colour = _mix(_COLOURS.get(int(number), _OTHER_COLOUR), "#4b5563", 0.35)
            svg = f'<line {place} stroke="{colour}"/><line {place} class="fog" opacity="{fade:.2f}"/>'
            shapes.append(_Shape(float(0.49 * end[2] + 0.51 * middle[2]) - 1e-3, svg))
    return shapes


def _svg(content: str, label: str) -> str:
    box = f'viewBox="0 0 {_SIZE:g} {_SIZE:g}"'
    return f'<svg class="molecule" {box} role="img" aria-label="{escape(label, quote=True)}">{content}</svg>'


def _mix(colour: str, other: str, share: float) -> str:
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
