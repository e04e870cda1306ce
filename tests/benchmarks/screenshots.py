"""Pictures for deploy/README.md: the dashboards' data, ``elign watch`` and the report of a run that goes on.

    elign cluster up --prometheus-port 9090
    elign submit --preset laptop --run-dir runs/pictures
    python -m tests.benchmarks.screenshots runs/pictures --prometheus http://localhost:9090 --minutes 10

The dashboards are not Grafana's rendering: every query of theirs is put to the real Prometheus, and what it
answers is drawn. Chromium (Debian package ``chromium``) turns pages into pictures.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image, ImageChops
from rich.console import Console
from rich.terminal_theme import MONOKAI

from elign.learner.html_page import html_page
from elign.learner.line_chart import Chart, draw_chart
from elign.monitoring.dashboards import DASHBOARDS
from elign.monitoring.events import EVENTS
from elign.monitoring.live_view import draw, read_run
from elign.monitoring.panels import Dashboard, Event, Panel

IMAGES = Path(__file__).resolve().parents[2] / "deploy" / "images"
MAX_BYTES = 200_000
STEP_S = 5
_MAX_SERIES = 7
_MARGIN = 12
Series = dict[str, np.ndarray]


class Prometheus:
    """Asks for the last minutes of one run."""

    def __init__(self, url: str, run: str, minutes: float) -> None:
        self._url, self._run = url, run
        self._end = time.time()
        self.times = np.arange(self._end - 60 * minutes, self._end, STEP_S)
        self.minutes = (self.times - self.times[-1]) / 60

    def ask(self, expression: str, legend: str) -> Series:
        """Label -> [n] values at ``times``, NaN where there is none."""
        query = expression.replace("$__rate_interval", "1m").replace("$run", self._run)
        parameters: dict[str, Any] = {
            "query": query, "start": self.times[0], "end": self.times[-1], "step": STEP_S
        }  # fmt: skip
        answer = requests.get(f"{self._url}/api/v1/query_range", params=parameters, timeout=30)
        answer.raise_for_status()
        return {
            _label(legend, found["metric"]): self._column(found["values"])
            for found in answer.json()["data"]["result"]
        }

    def _column(self, values: list[tuple[float, str]]) -> np.ndarray:
        column = np.full(len(self.times), np.nan)
        for moment, value in values:
            column[round((moment - self.times[0]) / STEP_S)] = float(value)
        return column


def _label(legend: str, labels: dict[str, str]) -> str:
    """As Grafana writes it; the run's name is left out, since there is one run."""
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", "" if name == "run" else value)
    return legend.replace("{{run}}", "").strip() or "value"


def dashboard_page(dashboard: Dashboard, prometheus: Prometheus) -> str:
    """The panels in their rows, and when the events were, as an HTML page."""
    parts = [f"<h1>{escape(dashboard.title)}</h1>", f"<p>{_events(prometheus)}</p>"]
    for row in dashboard.rows:
        panels = [_panel(panel, prometheus) for panel in row.panels]
        columns = f'style="display:grid;grid-template-columns:repeat({len(panels)},1fr);gap:8px"'
        parts.append(f"<h2>{escape(row.title)}</h2><div {columns}>{''.join(panels)}</div>")
    wide = "<style>main{max-width:none;margin:0;padding:8px}h2{margin:8px 0}figure{margin:0}</style>"
    return html_page(dashboard.title, wide + "".join(parts))


def _panel(panel: Panel, prometheus: Prometheus) -> str:
    series: Series = {}
    for query in panel.queries:
        series |= prometheus.ask(query.expression, query.legend)
    finite = {label: v for label, v in list(series.items())[:_MAX_SERIES] if np.isfinite(v).any()}
    title, unit = escape(panel.title), "%" if panel.unit == "percentunit" else ""
    if not finite:
        return (
            f"<figure class='chart'><figcaption><b>{title}</b></figcaption><p class='note'>none</p></figure>"
        )
    if panel.kind == "stat":
        last = next(iter(finite.values()))
        value = 100 * last[np.isfinite(last)][-1] if unit else last[np.isfinite(last)][-1]
        return _figure(title, f"<p style='font-size:2.2em;margin:6px 0'>{value:.3g} {unit}</p>")
    names = {label: label for label in finite}
    unit = unit or panel.unit.replace("none", "")
    return draw_chart(Chart(panel.title, names, unit), prometheus.minutes, finite)


def _figure(title: str, content: str) -> str:
    return f"<figure class='chart'><figcaption><b>{title}</b></figcaption>{content}</figure>"


def _events(prometheus: Prometheus) -> str:
    words = [
        f"{escape(event.name)} {time.strftime('%H:%M:%S', time.gmtime(moment))}"
        for event in EVENTS
        for moment in _moments(event, prometheus)
    ]
    return f"Last {-prometheus.minutes[0]:.0f} minutes. Events (UTC): {', '.join(words[-8:]) or 'none'}"


def _moments(event: Event, prometheus: Prometheus) -> Iterator[float]:
    """When it was, in seconds since 1970: as Grafana makes marks of the answer."""
    for values in prometheus.ask(event.expression, event.title).values():
        if event.at_value:
            yield from sorted(set(values[np.isfinite(values)] / 1000))
        else:
            there = np.isfinite(values)
            starts = there & ~np.concatenate([[False], there[:-1]])
            yield from prometheus.times[starts]


def watch_page(run_dir: Path) -> str:
    """What ``elign watch`` shows now."""
    console = Console(record=True, width=96, file=io.StringIO(), force_terminal=True)
    console.print(draw(read_run(run_dir)))
    return console.export_html(theme=MONOKAI, inline_styles=True)


def take_picture(page: str, path: Path, size: tuple[int, int]) -> None:
    """Of an HTML page in a window of that size, without the empty part below; raises RuntimeError."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("there is no program chromium on the PATH; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        source, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        source.write_text(page, encoding="utf-8")
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        _trimmed(Image.open(picture).convert("RGB")).quantize(128).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise RuntimeError(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")


def _trimmed(image: Image.Image) -> Image.Image:
    background = Image.new("RGB", image.size, image.getpixel((image.width - 1, image.height - 1)))
    box = ImageChops.difference(image, background).getbbox()
    if box is None:
        raise RuntimeError("the page is empty")
    return image.crop((0, 0, image.width, min(box[3] + _MARGIN, image.height)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    prometheus = Prometheus(options.prometheus, options.run_dir.resolve().name, options.minutes)
    for dashboard in DASHBOARDS:
        page = dashboard_page(dashboard, prometheus)
        take_picture(page, options.out / f"{dashboard.uid.removeprefix('elign-')}.png", (1400, 2400))
    take_picture(watch_page(options.run_dir), options.out / "watch.png", (860, 700))
    report = (options.run_dir / "report.html").read_text(encoding="utf-8")
    take_picture(report, options.out / "report.png", (1200, 900))


if __name__ == "__main__":
    main()
