"""``report.html`` of a run: curves, molecules before and after, settings; one file that needs no network.

write_report("runs/first")        # runs/first/report.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from elign.common.errors import DataError
from elign.common.storage import write_atomic
from elign.learner.gaming_watch import ALARM_PREFIX
from elign.learner.html_page import html_page
from elign.learner.line_chart import draw_chart
from elign.learner.report_charts import Section, ends, sections
from elign.learner.report_molecules import molecules_section, read_sampled
from elign.learner.run_metrics import read_metrics
from elign.learner.set_aside_log import read_set_aside

REPORT_FILE = "report.html"
_NOTICEABLE = 0.01
"""A relative change below this is not coloured as better or worse."""
_TILES = (
    ("rms_force_mean", "mean RMS force", "eV/Å", "lower"),
    ("atom_stability", "stable atoms", "%", "higher"),
    ("molecule_stability", "stable molecules", "%", "higher"),
    ("validity", "valid molecules", "%", "higher"),
    ("uniqueness", "unique among valid", "%", "higher"),
)


def write_report(run_dir: Path | str) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Needs ``metrics.parquet``; ``config.yaml``, ``run.json`` and the pair ``before.parquet``,
    ``after.parquet`` add their parts where present. Raises DataError when a file is missing or damaged,
    StorageError when writing fails.
    """
    run_dir = Path(run_dir)
    iterations, columns = metric_columns(run_dir)
    state, config = _read_json(run_dir / "run.json"), _read_yaml(run_dir / "config.yaml")
    parts = [
        _header(run_dir, state, len(iterations)),
        _alarms(columns),
        _tiles(columns),
        *(_section(section, iterations, columns) for section in sections(columns)[:1]),
        _molecules(run_dir),
        *(_section(section, iterations, columns) for section in sections(columns)[1:]),
        _given_up(read_set_aside(run_dir)),
        _settings(config, state),
        "<footer>Smoothed over about a tenth of the run (bold), raw values behind (thin). "
        "Figures of single iterations: metrics.parquet, or TensorBoard on tensorboard/.</footer>",
    ]
    page = html_page(run_dir.resolve().name, "".join(parts))
    path = run_dir / REPORT_FILE
    write_atomic(path, lambda temporary: _write_text(temporary, page))
    return path


def metric_columns(run_dir: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(iterations [n], name -> [n] of every other column); raises DataError when there is no iteration."""
    rows = read_metrics(run_dir)
    if not rows:
        raise DataError(f"the run in {run_dir} has no finished iteration to report on")
    columns = {
        name: np.array([math.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)
        for name in rows[0]
    }
    if "iteration" not in columns:
        raise DataError(f"the metrics in {run_dir} have no column 'iteration'")
    return columns.pop("iteration"), columns


def _header(run_dir: Path, state: Mapping[str, Any], count: int) -> str:
    facts = [str(state["state"])] if "state" in state else []
    planned = state.get("iterations")
    facts.append(f"{count} of {planned} iterations" if planned else f"{count} iterations")
    if "seed" in state:
        facts.append(f"seed {state['seed']}")
    versions = state.get("versions", {})
    if "elign" in versions:
        facts.append(f"elign {versions['elign']}")
    return f'<h1>Run {escape(run_dir.resolve().name)}</h1><p class="lead">{escape(" · ".join(facts))}</p>'


def _tiles(columns: Mapping[str, np.ndarray]) -> str:
    tiles = []
    for name, label, unit, better in _TILES:
        if name not in columns:
            continue
        first, last = ends(columns[name])
        if math.isnan(first):
            continue
        kind = "up" if (last > first) == (better == "higher") else "down"
        colour = kind if abs(last - first) > _NOTICEABLE * abs(first) else ""
        tiles.append(
            f'<div class="tile"><div class="name">{label}</div>'
            f'<div class="value {colour}">{_value(last, unit)}</div>'
            f'<div class="from">at first {_value(first, unit)}</div></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _alarms(columns: Mapping[str, np.ndarray]) -> str:
    """What the watch on gaming warned of, and whether it still does."""
    lines = []
    for name, values in columns.items():
        raised = np.flatnonzero(values == 1)
        if name.startswith(ALARM_PREFIX) and len(raised):
            now = "still raised" if values[-1] == 1 else "not any more"
            title = name.removeprefix(ALARM_PREFIX).replace("_", " ")
            lines.append(f"<li><b>{escape(title)}</b>: first at iteration {raised[0] + 1}, {now}</li>")
    return f'<section class="alarms"><h2>Warnings</h2><ul>{"".join(lines)}</ul></section>' if lines else ""


def _section(section: Section, iterations: np.ndarray, columns: Mapping[str, np.ndarray]) -> str:
    charts = "".join(draw_chart(chart, iterations, columns) for chart in section.charts)
    return (
        f'<section><h2>{escape(section.title)}</h2><p class="lead">{escape(section.note)}</p>'
        f'<div class="charts{" wide" if len(section.charts) in (2, 4) else ""}">{charts}</div></section>'
    )


def _molecules(run_dir: Path) -> str:
    before, after = run_dir / "before.parquet", run_dir / "after.parquet"
    if not (before.is_file() and after.is_file()):
        return (
            '<section><h2>Before and after</h2><p class="lead">'
            "The molecules of the starting and the best policy are sampled when the run ends.</p></section>"
        )
    return molecules_section(read_sampled(before), read_sampled(after))


def _given_up(entries: Sequence[Mapping[str, Any]]) -> str:
    """Groups without a result, and why; nothing where there are none."""
    if not entries:
        return ""
    rows = "".join(
        f"<tr><td>{entry['iteration']}</td><td>{entry['group']}</td><td>{entry['num_atoms']}</td>"
        f"<td>{escape('; '.join(entry['causes']))}</td></tr>"
        for entry in entries
    )
    head = "<tr><th>iteration</th><th>group</th><th>atoms</th><th>what went wrong in each try</th></tr>"
    return (
        '<section><h2>Groups set aside</h2><p class="lead">They failed as often as actors.max_tries allows, '
        "and their iterations went on without them.</p>"
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div></section>'
    )


def _settings(config: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    parts = []
    for title, tree in (("Settings", config), ("Run", state)):
        rows = "".join(
            f"<tr><td><code>{escape(key)}</code></td><td><code>{escape(str(value))}</code></td></tr>"
            for key, value in _flat(tree)
        )
        if rows:
            table = f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
            parts.append(f"<details><summary>{title}</summary>{table}</details>")
    return f"<section><h2>How it was made</h2>{''.join(parts)}</section>" if parts else ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys, as ``--set`` takes them."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.3g} {unit}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a JSON object: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise DataError(f"{path} is not a YAML mapping: {error}") from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
