"""Promises of ``elign train`` on a real local Ray: the run directory is complete, resumes, and is a policy.

A tiny random policy and GFN2-xTB as the force field: nothing here is good, all of it is real.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from elign.common.checkpoint import save_policy
from elign.common.config_load import load_config
from elign.common.molecule_io import read_molecules
from elign.common.policy import DiffusionPolicy, PolicySpec

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIG = """
policy: {checkpoint: tiny}
rollout: {num_steps: 6, shared_prefix: 0.5, groups: 2, samples_per_group: 3}
actors: {max: 1}
reward: {force_field: gfn2-xtb, stability_weight: 1.0, energy_weight: 0.0}
learner: {kl_coefficient: 0.0, clip_range: 0.1, learning_rate: 1e-4, minibatch_size: 8}
run: {iterations: 2, sample_every: 1, checkpoint_every: 1}
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """An empty place for a run, with a policy and a configuration beside it."""
    spec = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1, 6: 1})
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "tiny", {})
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "runs" / "first"


def test_a_run_from_start_to_sampling(elign_process: Elign, run_dir: Path, tmp_path: Path) -> None:
    done = elign_process("train", "--config", "tiny.yaml", "--run-dir", "runs/first")
    assert done.returncode == 0, done.stderr
    assert "training 2/2" in done.stderr
    assert "2 iterations, best at" in done.stdout
    assert load_config(None, run_dir / "config.yaml", []) == load_config(None, tmp_path / "tiny.yaml", [])
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        "after.parquet",
        "before.parquet",
        "best",
        "checkpoints",
        "config.yaml",
        "metrics.parquet",
        "report.html",
        "run.json",
        "samples",
        "tensorboard",
    }
    assert json.loads((run_dir / "run.json").read_text())["state"] == "finished"

    longer = elign_process("train", "--run-dir", "runs/first", "--resume", "--set", "run.iterations=3")
    assert longer.returncode == 0, longer.stderr
    assert "3 iterations, best at" in longer.stdout

    sampled = elign_process("sample", "--policy", "runs/first", "-n", "2", "--out", "made.xyz")
    assert sampled.returncode == 0, sampled.stderr
    assert "6 steps" in sampled.stdout
    assert len(read_molecules(tmp_path / "made.xyz")) == 2


@pytest.mark.slow
def test_a_conditional_policy_is_trained_at_given_formulas_and_values(
    elign_process: Elign, run_dir: Path, tmp_path: Path
) -> None:
    spec = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1}, conditioning=("alpha",))
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "tiny", {})
    train = ("train", "--config", "tiny.yaml", "--run-dir", "runs/first")
    refused = elign_process(*train)
    assert refused.returncode == 2
    assert "rollout.conditions: the policy is conditioned on alpha" in refused.stderr
    assert not run_dir.exists()
    done = elign_process(
        *train, "--set", "rollout.conditions=[-1, 1]", "--set", "rollout.formulas=[CH4, H2O]"
    )
    assert done.returncode == 0, done.stderr
    for name in ("before.parquet", "after.parquet", "samples/iteration_000001.parquet"):
        numbers = read_molecules(run_dir / name).arrays()
        assert {tuple(sorted(z.tolist())) for z, _ in numbers} <= {(1, 1, 1, 1, 6), (1, 1, 8)}
    condition = ("--condition", "alpha=0.5", "--formula", "CH4")
    sampled = elign_process("sample", "--policy", "runs/first", "-n", "2", *condition, "--out", "made.xyz")
    assert sampled.returncode == 0, sampled.stderr
