"""``elign watch``: every curve in a line, the end of a run seen, no run named clearly."""

from __future__ import annotations

import io
import json
import math
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from elign.common.errors import DataError
from elign.common.pool_status import ActorStatus, PoolStatus
from elign.common.run_control import RunControl
from elign.common.storage import write_atomic, write_json
from elign.monitoring import live_view
from elign.monitoring.live_view import draw, follow_run, read_run
from elign.monitoring.sparkline import sparkline

Elign = Callable[..., "subprocess.CompletedProcess[str]"]


def _write(run_dir: Path, iterations: int, state: str = "running") -> None:
    rows = [
        {
            "iteration": float(i),
            "rms_force_mean": 4.0 - i / 10,
            "atom_stability": 0.5 + i / 100,
            "uniqueness": math.nan,
            "molecules": 40.0,
            "time_iteration_s": 4.0,
            "time_rollout_s": 1.0,
            "time_update_s": 3.0,
            "alarm_fragments": float(i > 5),
        }
        for i in range(1, iterations + 1)
    ]
    run_dir.mkdir(exist_ok=True)
    if rows:
        table = pa.Table.from_pylist(rows)
        write_atomic(run_dir / "metrics.parquet", lambda path: pq.write_table(table, path))
    write_json(run_dir / "run.json", {"state": state, "iterations": 20})


def test_a_curve_goes_from_its_lowest_to_its_highest_bar() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 1, 1], width=2) == "▁█"
    assert sparkline([2, math.nan, 2], width=9) == "▅ ▅"
    assert sparkline([math.nan], width=9) == sparkline([], width=9) == ""
    assert len(sparkline(range(1000), width=40)) == 40


def test_one_frame_shows_curves_throughput_and_alarms(elign: Elign, tmp_path: Path) -> None:
    _write(tmp_path / "run", 10)
    shown = elign("watch", "run", "--once").stdout
    for words in (
        "run run  running  iteration 10 of 20",
        "RMS force",
        "3.9 eV/Å  3 eV/Å",
        "60.0 %",
        "10.0 molecules/s  4.0 s an iteration  1 min left  rollout 25%, update 75%",
        "alarms: fragments",
    ):
        assert words in shown
    assert "unique" not in shown  # nothing finite to show


def test_actors_are_counted_while_the_run_goes_on(tmp_path: Path) -> None:
    _write(tmp_path, 3)
    states = ("up", "starting", "up", "draining")
    actors = tuple(ActorStatus(state=s, process_id=1, node_id=None, group=None) for s in states)
    counts = {"waiting": 0, "issued": 1, "completed": 1, "rerun": 0, "set_aside": 0}
    RunControl(tmp_path).report(PoolStatus(target=3, actors=actors, **counts))
    screen = Console(record=True, file=io.StringIO(), width=100)
    screen.print(draw(read_run(tmp_path)))
    assert "actors: 2 up of 3 wanted, 1 draining, 1 starting" in screen.export_text()
    _write(tmp_path, 3, "finished")
    screen.print(draw(read_run(tmp_path)))
    assert "actors:" not in screen.export_text()


def test_a_run_before_its_first_iteration_and_no_run(elign: Elign, tmp_path: Path) -> None:
    _write(tmp_path / "run", 0)
    assert "no iteration is finished yet" in elign("watch", "run", "--once").stdout
    done = elign("watch", "nowhere", "--once")
    assert done.returncode == 2
    assert done.stderr.startswith("elign: error: there is no run in nowhere")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"state": "running"}))
    with pytest.raises(DataError, match="not what a run writes"):
        read_run(tmp_path / "run")


def test_a_run_that_was_just_submitted_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def begin(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            _write(tmp_path / "run", 2, "finished")

    monkeypatch.setattr(live_view.time, "sleep", begin)
    screen = io.StringIO()
    follow_run(tmp_path / "run", Console(file=screen, force_terminal=True, width=400))
    assert len(waits) == 3
    assert "yet; waiting for one" in screen.getvalue()
    assert "iteration 2 of 20" in screen.getvalue()
    with pytest.raises(DataError, match="there is no run in"):
        follow_run(tmp_path / "never", Console(file=screen))
    assert sum(waits[3:]) == live_view.BEGIN_LIMIT_S


def test_following_ends_when_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "run", 1)
    waited = threading.Event()

    def next_iteration(_: float) -> None:
        """Takes the place of waiting: the run goes on, and ends."""
        ended = waited.is_set()
        _write(tmp_path / "run", 3 if ended else 2, "finished" if ended else "running")
        waited.set()

    monkeypatch.setattr(live_view.time, "sleep", next_iteration)
    screen = io.StringIO()
    follow_run(tmp_path / "run", Console(file=screen, force_terminal=True, width=100))
    assert "finished" in screen.getvalue()
    assert "iteration 3 of 20" in screen.getvalue()
