"""What a run keeps on disk: figures, the best iteration, checkpoints that read back exactly."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest
import torch

from elign.common.checkpoint import load_policy
from elign.common.errors import CheckpointError, DataError, StorageError
from elign.common.rollout import RolloutPlan, SetAside
from elign.common.training_state import read_moments, write_moments
from elign.learner.learner_state import LearnerState
from elign.learner.plan_feed import PlanState
from elign.learner.run_checkpoint import (
    RunCheckpoint,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from elign.learner.run_metrics import MetricsLog, best_iteration, read_metrics
from elign.learner.set_aside_log import SetAsideLog, read_set_aside
from tests.learner.rollouts import tiny_policy


def rows(values: list[float]) -> list[dict[str, float]]:
    return [{"iteration": float(i), "objective": value} for i, value in enumerate(values, 1)]


def stepped_state() -> tuple[LearnerState, torch.optim.Optimizer]:
    policy = tiny_policy()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    average = {name: tensor * 0.5 for name, tensor in weights.items()}
    return LearnerState(weights, average, read_moments(optimizer, policy)), optimizer


def save(run_dir: Path, iteration: int, state: LearnerState, keep_last: int = 2) -> Path:
    checkpoint = RunCheckpoint(iteration, state, PlanState(4 * iteration + 2, (1, 5)))
    return save_checkpoint(run_dir, checkpoint, tiny_policy().spec, {"num_steps": 5}, keep_last=keep_last)


def test_best_is_the_first_highest_moving_average() -> None:
    assert best_iteration(rows([1.0, 2.0]), "objective", 3) is None
    assert best_iteration(rows([0.0, 3.0, 3.0, 0.0, 6.0, 0.0]), "objective", 2) == (3, 3.0)
    assert best_iteration(rows([math.nan, 9.0, 1.0, 2.0]), "objective", 2) == (3, 5.0)


def test_metrics_are_readable_after_every_iteration_and_cut_back_on_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, completed=0)
    for row in rows([1.0, 2.0, 3.0]):
        log.append(row)
        assert read_metrics(tmp_path)[-1] == row
    log.close()
    resumed = MetricsLog(tmp_path, completed=2)
    resumed.append({"iteration": 3.0, "objective": 30.0})
    resumed.close()
    assert [row["objective"] for row in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
    with pytest.raises(DataError, match="lacks iterations"):
        MetricsLog(tmp_path, completed=4)


def test_missing_or_damaged_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"metrics\.parquet"):
        read_metrics(tmp_path)


def test_checkpoint_reads_back_bit_for_bit(tmp_path: Path) -> None:
    state, optimizer = stepped_state()
    loaded = load_checkpoint(save(tmp_path, 12, state))
    assert loaded.completed_iterations == 12
    assert loaded.plans == PlanState(50, (1, 5))
    for mine, theirs in (
        (state.weights, loaded.learner.weights),
        (state.average, loaded.learner.average),
        (state.moments, loaded.learner.moments),
    ):
        assert mine is not None
        assert theirs is not None
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    policy = tiny_policy(1)
    fresh = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    write_moments(fresh, policy, loaded.learner.moments)
    again = read_moments(fresh, policy)
    assert all(torch.equal(again[name], state.moments[name]) for name in again)
    assert len(again) == 3 * len(optimizer.param_groups[0]["params"])


def test_checkpoint_is_a_policy_folder(tmp_path: Path) -> None:
    state, _ = stepped_state()
    policy = load_policy(save(tmp_path, 1, state))
    assert all(torch.equal(tensor, state.weights[name]) for name, tensor in policy.state_dict().items())


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    state, _ = stepped_state()
    for iteration in (2, 4, 10):
        save(tmp_path, iteration, state, keep_last=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration_000004", "iteration_000010"]


@pytest.mark.parametrize("name", ["model.safetensors", "learner.safetensors"])
def test_truncated_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 1, stepped_state()[0])
    (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{name} is missing or damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "learner.safetensors", "state.json", "policy.json"])
def test_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    state, _ = stepped_state()
    for iteration in (2, 4):
        folder = save(tmp_path, iteration, state)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.completed_iterations == 2
    assert name in caplog.text
    assert "going on from iteration_000002 instead" in caplog.text
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration_000002"]
    assert (folder.parent / "damaged_iteration_000004").is_dir()


def test_only_damaged_checkpoints_are_an_error_and_stay_as_they_are(tmp_path: Path) -> None:
    state, _ = stepped_state()
    for iteration in (2, 4):
        (save(tmp_path, iteration, state) / "learner.safetensors").unlink()
    with pytest.raises(CheckpointError, match="iteration_000004"):
        load_newest(tmp_path)
    assert len(list_checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("limit", [100, 20_000])
def test_disk_that_fills_during_a_checkpoint_leaves_the_old_ones(tmp_path: Path, limit: int) -> None:
    """A limit on the size of a file stands for the full disk: the write fails half-way, as it does there."""
    state, _ = stepped_state()
    save(tmp_path, 2, state)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*iteration_000004.*untouched"):
            save(tmp_path, 4, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.completed_iterations == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iteration_000002"]


def test_groups_that_were_given_up_are_remembered_up_to_the_checkpoint(tmp_path: Path) -> None:
    log = SetAsideLog(tmp_path, completed=0)
    assert read_set_aside(tmp_path) == []
    for iteration in (1, 2, 3):
        log.append(iteration, [SetAside(RolloutPlan(iteration, 5, 2, seed=0), ("it burned", "again"))])
    SetAsideLog(tmp_path, completed=2).append(3, [])
    assert [entry["iteration"] for entry in read_set_aside(tmp_path)] == [1, 2]
    assert read_set_aside(tmp_path)[0]["causes"] == ["it burned", "again"]
    (tmp_path / "plans_set_aside.json").write_text("{")
    with pytest.raises(DataError, match=r"plans_set_aside\.json"):
        read_set_aside(tmp_path)


def test_foreign_state_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 1, stepped_state()[0])
    (folder / "state.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(CheckpointError, match="not of the format"):
        load_checkpoint(folder)


def test_moments_of_another_network_are_refused() -> None:
    state, _ = stepped_state()
    other = tiny_policy(hidden=8)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3)
    with pytest.raises(CheckpointError, match="does not belong"):
        write_moments(optimizer, other, state.moments)
