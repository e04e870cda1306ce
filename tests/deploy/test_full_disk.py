"""A disk that fills up while a run goes on: one clear error, and the run resumes once there is room."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elign.common.checkpoint import save_policy
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.learner.run_checkpoint import list_checkpoints

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIG = """
policy: {checkpoint: tiny}
rollout: {num_steps: 6, shared_prefix: 0.5, groups: 2, samples_per_group: 3}
actors: {max: 1}
reward: {force_field: gfn2-xtb, stability_weight: 1.0, energy_weight: 0.0}
learner: {kl_coefficient: 0.0, clip_range: 0.1, learning_rate: 1e-4, minibatch_size: 8}
run: {iterations: 3, sample_every: 100, checkpoint_every: 1, keep_last: 5}
"""
pytestmark = pytest.mark.slow


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for less than one checkpoint of the policy beside it."""
    spec = PolicySpec(hidden=64, num_layers=4, size_histogram={4: 1, 6: 1})
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "tiny", {})
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-o", "size=1500k", "elign-test", str(disk))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_run_whose_disk_is_full_says_so_and_resumes(elign_process: Elign, small_disk: Path) -> None:
    run = small_disk / "run"
    failed = elign_process("train", "--config", "tiny.yaml", "--run-dir", str(run))
    assert failed.returncode == 1
    assert "cannot write" in failed.stderr
    assert "No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert json.loads((run / "run.json").read_text())["state"] == "failed"
    assert not [path for path in run.rglob(".*") if path.is_dir()]  # no half-written folder stays
    mount("-o", "remount,size=64m", "elign-test", str(small_disk))
    done = elign_process("train", "--run-dir", str(run), "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert len(list_checkpoints(run)) > 0
