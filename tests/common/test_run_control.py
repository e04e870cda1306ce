"""Talking to a run through its directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elign.common.config import TrainConfig
from elign.common.config_load import dump_config
from elign.common.errors import ConfigError, DataError
from elign.common.pool_status import ActorStatus, PoolStatus
from elign.common.run_control import RunControl, driver_is_gone, read_status, request_actors

ACTOR = ActorStatus(state="up", process_id=5, node_id="a", group=None)
POOL = PoolStatus(target=1, actors=(ACTOR,), waiting=0, issued=4, completed=3, rerun=1, set_aside=0)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    config = TrainConfig.model_validate({"actors": {"min": 2, "max": 5}})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    (tmp_path / "run.json").write_text(json.dumps({"state": "running"}))
    return tmp_path


def test_a_wish_reaches_the_run_and_ends_with_it(run_dir: Path) -> None:
    control = RunControl(run_dir)
    assert control.wanted_actors() is None
    request_actors(run_dir, 3)
    assert control.wanted_actors() == 3
    request_actors(run_dir, 5)
    assert control.wanted_actors() == 5
    assert RunControl(run_dir).wanted_actors() is None


def test_damaged_wish_changes_nothing_and_is_named(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    control = RunControl(run_dir)
    request_actors(run_dir, 3)
    assert control.wanted_actors() == 3
    (run_dir / "control.json").write_text('{"actors": "many')
    assert control.wanted_actors() == 3
    assert "control.json" in caplog.text


def test_what_the_run_does_not_allow_is_refused(run_dir: Path, tmp_path: Path) -> None:
    for number in (1, 6):
        with pytest.raises(ConfigError, match=rf"--actors {number} .*actors\.min = 2 to actors\.max = 5"):
            request_actors(run_dir, number)
    (run_dir / "run.json").write_text(json.dumps({"state": "finished"}))
    with pytest.raises(ConfigError, match="is finished"):
        request_actors(run_dir, 3)
    with pytest.raises(ConfigError, match="there is no run in"):
        request_actors(tmp_path / "nowhere", 3)


def test_status_reads_back_and_tells_a_dead_driver(run_dir: Path) -> None:
    assert read_status(run_dir) is None
    RunControl(run_dir).report(POOL)
    told = read_status(run_dir)
    assert told is not None
    assert (told.pool, told.process_id) == (POOL, os.getpid())
    assert not driver_is_gone(told)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert driver_is_gone(told.model_copy(update={"process_id": child.pid}))
    assert not driver_is_gone(told.model_copy(update={"process_id": child.pid, "host": "elsewhere"}))
    (run_dir / "status.json").write_text("{}")
    with pytest.raises(DataError, match=r"status\.json"):
        read_status(run_dir)


def test_full_disk_costs_the_status_but_not_the_run(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    control = RunControl(run_dir)
    (run_dir / "status.json").mkdir()  # nothing can be put in its place
    control.report(POOL)
    assert "status.json" in caplog.text
