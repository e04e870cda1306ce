"""A run as one screen of text: curves, throughput, alarms; read from the files in its folder.

    follow_run(Path("runs/first"), Console())

It needs no server, and works beside a run, after it, and wherever the folder can be seen.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from elign.common.errors import DataError
from elign.common.pool_status import PoolStatus
from elign.common.run_control import read_status
from elign.learner.gaming_watch import ALARM_PREFIX
from elign.learner.run_metrics import METRICS_FILE, Row, read_metrics
from elign.monitoring.sparkline import sparkline

RUNNING = "running"
BEGIN_LIMIT_S = 120.0
_CURVE_WIDTH = 32
_RECENT = 10
_PERCENT = "%"

_FIGURES = (
    ("rms_force_mean", "RMS force", "eV/Å"),
    ("atom_stability", "stable atoms", _PERCENT),
    ("molecule_stability", "stable molecules", _PERCENT),
    ("validity", "valid", _PERCENT),
    ("uniqueness", "unique among valid", _PERCENT),
    ("objective", "objective", ""),
    ("kl", "KL to reference", ""),
    ("clip_fraction", "clipped", _PERCENT),
    ("log_ratio_squared", "squared log-ratio", ""),
    ("grad_norm", "gradient norm", ""),
)
_PHASES = ("rollout", "update", "advantages", "broadcast")


@dataclass(frozen=True)
class RunView:
    """What the folder of a run says now.

    state: of run.json, as in "running". planned: iterations. pool: None where nothing was said of actors yet.
    """

    name: str
    state: str
    planned: int
    rows: list[Row]
    pool: PoolStatus | None = None

    @property
    def ended(self) -> bool:
        return self.state != RUNNING


def read_run(run_dir: Path) -> RunView:
    """Raises DataError where there is no run, or its files are damaged."""
    path = run_dir / "run.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        state, planned = str(facts["state"]), int(facts["iterations"])
    except FileNotFoundError:
        raise DataError(f"there is no run in {run_dir} ({path} is missing)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not what a run writes: {error!r}") from error
    rows = read_metrics(run_dir) if (run_dir / METRICS_FILE).exists() else []
    told = read_status(run_dir)
    return RunView(run_dir.resolve().name, state, planned, rows, None if told is None else told.pool)


def follow_run(
    run_dir: Path, console: Console, *, interval_s: float = 2.0, refresh: Callable[[], None] = lambda: None
) -> None:
    """Show the run until it ends; Ctrl-C leaves the view, not the run. Raises DataError.

    refresh: brings ``run_dir`` up to date where it is a copy.
    A run that was just submitted has no folder yet: its beginning is waited for, up to ``BEGIN_LIMIT_S``.
    """
    view = _first_view(run_dir, console, interval_s)
    with Live(draw(view), console=console, auto_refresh=False) as live:
        while not view.ended:
            time.sleep(interval_s)
            refresh()
            view = read_run(run_dir)
            live.update(draw(view), refresh=True)


def _first_view(run_dir: Path, console: Console, interval_s: float) -> RunView:
    waits = 0 if run_dir.exists() else int(BEGIN_LIMIT_S / interval_s)
    if waits:
        console.print(f"there is no run in {run_dir} yet; waiting for one (Ctrl-C ends it)")
    for _ in range(waits):
        if (run_dir / "run.json").exists():
            break
        time.sleep(interval_s)
    return read_run(run_dir)


def draw(view: RunView) -> RenderableType:
    """One frame."""
    if not view.rows:
        return Group(_heading(view), Text("no iteration is finished yet"))
    return Group(_heading(view), _curves(view.rows), _throughput(view), _actors(view), _alarms(view.rows))


def _heading(view: RunView) -> Text:
    style = {"running": "bold cyan", "finished": "bold green"}.get(view.state, "bold yellow")
    done = int(view.rows[-1]["iteration"]) if view.rows else 0
    return Text.assemble(
        (f"run {view.name}", "bold"), "  ", (view.state, style), f"  iteration {done} of {view.planned}"
    )


def _curves(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, justify in (("", "left"), ("curve", "left"), ("first", "right"), ("now", "right")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, label, unit in _FIGURES:
        values = _column(rows, name)
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            curve = sparkline(values, width=_CURVE_WIDTH)
            table.add_row(label, curve, _value(finite[0], unit), _value(finite[-1], unit))
    return table


def _throughput(view: RunView) -> Text:
    """Over the last iterations: speed, what is left, and where the time goes."""
    recent = view.rows[-_RECENT:]
    seconds = sum(_column(recent, "time_iteration_s"))
    if not seconds > 0:
        return Text("")
    parts = [f"{sum(_column(recent, 'molecules')) / seconds:.1f} molecules/s"]
    parts.append(f"{seconds / len(recent):.1f} s an iteration")
    left = view.planned - int(view.rows[-1]["iteration"])
    if left > 0 and not view.ended:
        parts.append(f"{_duration(left * seconds / len(recent))} left")
    phases = [
        f"{phase} {share:.0%}"
        for phase in _PHASES
        if (share := sum(_column(recent, f"time_{phase}_s")) / seconds) >= 0.01
    ]
    return Text("  ".join([*parts, ", ".join(phases)]))


def _actors(view: RunView) -> Text:
    """How many of those wanted are up, and what the others do."""
    if view.pool is None or view.ended:
        return Text("")
    found = Counter(actor.state for actor in view.pool.actors)
    others = [f"{number} {state}" for state, number in sorted(found.items()) if state != "up"]
    return Text(", ".join([f"actors: {found['up']} up of {view.pool.target} wanted", *others]))


def _alarms(rows: Sequence[Row]) -> Text:
    names = [n for n, value in rows[-1].items() if n.startswith(ALARM_PREFIX) and value == 1]
    if not names:
        return Text("no alarms")
    words = [name.removeprefix(ALARM_PREFIX).replace("_", " ") for name in names]
    return Text(f"alarms: {', '.join(words)}", style="bold red")


def _column(rows: Sequence[Row], name: str) -> list[float]:
    found = [row.get(name) for row in rows]
    return [math.nan if value is None else value for value in found]


def _value(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == _PERCENT else f"{value:.3g} {unit}".rstrip()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
