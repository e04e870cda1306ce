"""The example sweep: the algorithm runs under Ray Tune as any of RLlib's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import PACKAGE

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "sweep.py"
SMALL = (
    "rollout.num_steps=12",
    "rollout.groups=2",
    "rollout.samples_per_group=3",
    "learner.skip_last=1",
    "actors.max=1",
)


@pytest.mark.slow
def test_every_pair_is_a_trial_with_its_own_settings(tmp_path: Path) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    grid = ["--energy-weights", "0", "0.1", "--prefixes", "0.5", "--iterations", "2"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--storage", str(tmp_path / "sweep"), *grid, *settings],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = done.stdout.split("|---:|---:|---:|---:|\n")[1].splitlines()
    assert [line.split(" | ")[:2] for line in table] == [["| 0", "0.5"], ["| 0.1", "0.5"]]
    assert len(list((tmp_path / "sweep").glob("*/*/progress.csv"))) == 2
