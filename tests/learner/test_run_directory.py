"""Promises of a run's folder about starting, stopping early and starting again."""

from __future__ import annotations

from pathlib import Path

import pytest

from elign.common.checkpoint import load_policy, save_policy
from elign.common.config_load import load_config
from elign.common.errors import CheckpointError, ConfigError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.learner.run_directory import RunDirectory


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A small policy with random weights."""
    save_policy(
        DiffusionPolicy(PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})), tmp_path / "policy", {}
    )
    return tmp_path / "policy"


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(policy: Path, tmp_path: Path) -> None:
    config = load_config("laptop", None, [f"policy.checkpoint={policy}"])
    RunDirectory(tmp_path / "run", config, resume=False)
    again = RunDirectory(tmp_path / "run", config, resume=True)
    assert again.checkpoint is None
    assert again.completed_iterations == 0
    assert load_policy(again.start).spec == load_policy(policy).spec


def test_a_folder_with_something_in_it_is_left_alone(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    config = load_config("laptop", None, [f"policy.checkpoint={policy}"])
    with pytest.raises(ConfigError, match="not empty"):
        RunDirectory(tmp_path / "run", config, resume=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_nothing_is_written_when_the_policy_is_missing(tmp_path: Path) -> None:
    config = load_config("laptop", None, ["policy.checkpoint=nowhere"])
    with pytest.raises(CheckpointError, match="nowhere"):
        RunDirectory(tmp_path / "run", config, resume=False)
    assert not (tmp_path / "run").exists()
