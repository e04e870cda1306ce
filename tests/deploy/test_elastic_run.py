"""A run in a process of its own, as a user has it: watched, scaled and killed from outside."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from elign.learner.run_checkpoint import list_checkpoints, load_checkpoint
from elign.learner.run_metrics import read_metrics
from tests.deploy.conftest import PACKAGE

CONFIG = """
rollout: {num_steps: 12, shared_prefix: 0.4, groups: 3, samples_per_group: 4}
actors: {min: 1, max: 2}
reward: {stability_weight: 1.0}
learner: {kl_coefficient: 0.0, clip_range: 0.2, learning_rate: 1e-4, final_learning_rate: 1e-4, skip_last: 2}
run: {sample_every: 1000, checkpoint_every: 2}
"""
"""The learning rate is constant, so that it does not depend on the length of the run."""
CLOCK = ("time_", "sampling_s", "reward_wait_s", "idle_share")
Start = Callable[..., "subprocess.Popen[bytes]"]
pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("train", ...)`` in the test's folder; ended with the test."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "elign", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "ELIGN_HOME": str(tmp_path / "home")}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(fits: Callable[[], bool]) -> None:
    for _ in range(6000):
        if fits():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within five minutes")


def iterations(run_dir: Path) -> int:
    return len(read_metrics(run_dir)) if (run_dir / "metrics.parquet").exists() else 0


def figures(run_dir: Path) -> list[dict[str, float]]:
    """All but what a clock says; NaN equals NaN."""
    return [
        {name: -999.0 if math.isnan(value) else value for name, value in row.items()
         if not name.startswith(CLOCK)}
        for row in read_metrics(run_dir)
    ]  # fmt: skip


def test_killed_driver_resumes_bit_for_bit(start: Start, tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    config = ("train", "--config", "tiny.yaml", "--run-dir")
    driver = start(*config, "killed", "--set", "run.iterations=1000")
    wait_for(lambda: iterations(killed) >= 3)
    driver.kill()
    driver.wait()
    done = iterations(killed)
    assert json.loads((killed / "run.json").read_text())["state"] == "running"
    length = f"run.iterations={done + 2}"
    assert start("train", "--run-dir", "killed", "--resume", "--set", length).wait(300) == 0
    assert start(*config, "straight", "--set", length).wait(300) == 0
    check_same_run(killed, straight)


def check_same_run(run: Path, straight: Path) -> None:
    """Figures, weights, moments and plans, bit by bit."""
    assert figures(run) == figures(straight)
    assert math.isfinite(read_metrics(straight)[-1]["reward_force"])
    mine, theirs = (load_checkpoint(list_checkpoints(place)[-1]) for place in (run, straight))
    assert mine.plans == theirs.plans
    for one, two in (
        (mine.learner.weights, theirs.learner.weights),
        (mine.learner.moments, theirs.learner.moments),
    ):
        assert all(torch.equal(one[name], two[name]) for name in two)


def test_a_run_behind_an_address_survives_the_loss_of_its_machine(start: Start, tmp_path: Path) -> None:
    place, straight = tmp_path / "bucket" / "lost", tmp_path / "straight"
    config, uri = ("train", "--config", "tiny.yaml", "--run-dir"), place.as_uri()
    driver = start(*config, uri, "--set", "run.iterations=1000")
    wait_for(lambda: iterations(place) >= 3 and bool(list_checkpoints(place)))
    assert start("scale", uri, "--actors", "1").wait(60) == 0
    driver.kill()
    driver.wait()
    shutil.rmtree(tmp_path / "home")
    text = elign(tmp_path, "status", uri)
    assert f"dead: {iterations(place)} of 1000 iterations" in text
    assert f"its process is gone; to go on: elign train --run-dir {uri} --resume" in text
    length = f"run.iterations={iterations(place) + 2}"
    assert start("train", "--run-dir", uri, "--resume", "--set", length).wait(300) == 0
    assert start(*config, "straight", "--set", length).wait(300) == 0
    check_same_run(place, straight)
    assert {path.name for path in straight.iterdir()} <= {path.name for path in place.iterdir()}
    assert "finished" in elign(tmp_path, "watch", uri)
    assert "2 molecules (12 steps" in elign(tmp_path, "sample", "--policy", uri, "-n", "2", "--out", "a.xyz")


def test_live_run_is_scaled_and_shown_from_another_shell(start: Start, tmp_path: Path) -> None:
    run_dir = tmp_path / "live"
    driver = start("train", "--config", "tiny.yaml", "--run-dir", "live", "--set", "run.iterations=100000")
    wait_for(lambda: iterations(run_dir) >= 1)
    wait_for(lambda: up(status(tmp_path)) == 2)
    assert start("scale", "live", "--actors", "1").wait(60) == 0
    wait_for(lambda: up(status(tmp_path)) == 1)
    before = status(tmp_path)
    assert before["live"]["pool"]["target"] == 1
    wait_for(lambda: iterations(run_dir) > before["completed_iterations"])
    assert start("scale", "live", "--actors", "2").wait(60) == 0
    wait_for(lambda: up(status(tmp_path)) == 2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert status(tmp_path)["state"] == "dead"
    text = elign(tmp_path, "status", "live")
    assert "its process is gone; to go on: elign train --run-dir live --resume" in text


def status(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(elign(folder, "status", "live", "--json"))
    return told


def up(told: dict[str, Any]) -> int:
    actors = told["live"]["pool"]["actors"] if told["live"] else []
    return sum(actor["state"] == "up" for actor in actors)


def elign(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "ELIGN_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "elign", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout
