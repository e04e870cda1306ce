"""Promises of ``elign pretrain``: Ctrl-C saves, --resume goes on, the result is a policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from elign.common.molecule_io import write_molecules
from elign.common.molecules import Molecules

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = ["hidden=8", "num_layers=1", "batch_size=4", "warmup_steps=1", "log_every=1", "stability_samples=0"]
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Twenty waters, each a little different."""
    rng = np.random.default_rng(0)
    water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
    positions = [water + rng.normal(scale=0.02, size=(3, 3)) for _ in range(20)]
    write_molecules(tmp_path / "water.extxyz", Molecules.from_lists([np.array([8, 1, 1])] * 20, positions))
    return str(tmp_path / "water.extxyz")


def test_pretraining_makes_a_policy(elign: Elign, data: str, tmp_path: Path) -> None:
    done = elign("pretrain", "--data", data, "--run-dir", "prior", *SETTINGS, "--set", "num_steps=6")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 6
    assert "pretraining 6/6" in done.stderr
    sampled = elign("sample", "--policy", "prior", "-n", "2", "--steps", "2", "--out", "made.sdf")
    assert sampled.returncode == 0, sampled.stderr
    assert (tmp_path / "made.sdf").exists()


def test_ctrl_c_saves_and_resume_goes_on(elign: Elign, data: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "elign", "pretrain", "--data", data, "--run-dir", "prior"]
    with subprocess.Popen(
        [*command, *SETTINGS, "--set", "num_steps=1000000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("pretraining"):
                break
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "elign pretrain --data" in rest
    assert "--resume" in rest
    assert "Traceback" not in rest
    saved = json.loads((tmp_path / "prior" / "state" / "counters.json").read_text())["step"]
    assert saved > 0
    longer = f"num_steps={saved + 3}"
    resumed = elign("pretrain", "--data", data, "--run-dir", "prior", "--resume", "--set", longer)
    assert resumed.returncode == 0, resumed.stderr
    assert f"pretraining {saved + 1}/{saved + 3}" in resumed.stderr
    assert json.loads(resumed.stdout)["step"] == saved + 3


def test_a_wrong_setting_gets_the_list(elign: Elign, data: str) -> None:
    done = elign("pretrain", "--data", data, "--run-dir", "prior", "--set", "layers=3")
    assert done.returncode == 2
    assert "unknown setting layers" in done.stderr
    assert "num_layers" in done.stderr
