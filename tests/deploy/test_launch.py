"""Whole runs on a real local Ray with a tiny policy: exact resume, any number of actors, interruption."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
import torch

import elign.launch
from elign.common.checkpoint import load_policy, save_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.errors import ConfigError
from elign.common.molecule_io import read_molecules
from elign.launch import build_algorithm, train
from elign.learner.fed_grpo import FedGrpo
from elign.learner.run_checkpoint import list_checkpoints, load_checkpoint
from elign.learner.run_metrics import Row, read_metrics
from elign.reward_server.reward_actor import start_reward_server
from tests.actors.fake_reward_server import start_fake_reward_server
from tests.learner.rollouts import tiny_policy

TINY = (
    "rollout.num_steps=6",
    "rollout.shared_prefix=0.5",
    "rollout.groups=3",
    "rollout.samples_per_group=4",
    "reward.force_field=gfn2-xtb",
    "reward.stability_weight=1.0",
    "reward.energy_mode=terminal",
    "learner.minibatch_size=12",
    "learner.epochs=2",
    "learner.learning_rate=1e-3",
    "learner.clip_range=0.2",
    "learner.warmup_iterations=1",
    "learner.ema_decay=0.5",
    "run.iterations=4",
    "run.checkpoint_every=2",
    "run.sample_every=2",
    "run.best_window=2",
)
CLOCK = ("sampling_s", "reward_wait_s", "idle_share_actors", "idle_share_learner")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    # short: Ray's sockets have a length limit
    folder = f"/tmp/elign-ray-{os.getpid()}"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elign.launch, "start_reward_server", start_fake_reward_server)
    monkeypatch.setattr(elign.launch, "NUM_COMPARED", 4)


def config(tmp_path: Path, *overrides: str) -> TrainConfig:
    save_policy(tiny_policy(), tmp_path / "policy")
    return load_config(None, None, [f"policy.checkpoint={tmp_path / 'policy'}", *TINY, *overrides])


def figures(run_dir: Path) -> list[Row]:
    """All but what a clock says; NaN equals NaN."""
    return [
        {
            name: -999.0 if math.isnan(value) else value
            for name, value in row.items()
            if not name.startswith("time_") and name not in CLOCK
        }
        for row in read_metrics(run_dir)
    ]


def last_state(run_dir: Path) -> dict[str, torch.Tensor]:
    learner = load_checkpoint(list_checkpoints(run_dir)[-1]).learner
    average = {f"average/{name}": tensor for name, tensor in (learner.average or {}).items()}
    return {**learner.weights, **average, **learner.moments}


def assert_same_run(one: Path, two: Path) -> None:
    assert figures(one) == figures(two)
    mine, theirs = last_state(one), last_state(two)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


class Interrupt:
    """Sends this process a signal after the given iteration."""

    def __init__(self, after: int, number: signal.Signals = signal.SIGINT) -> None:
        self.after, self.number = after, number

    def __call__(self, row: Row) -> None:
        if row["iteration"] == self.after:
            os.kill(os.getpid(), self.number)


def test_resumed_run_and_other_number_of_actors_equal_the_uninterrupted_run(tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    summary = train(config(tmp_path, "actors.max=1"), straight)
    assert summary["completed_iterations"] == 4
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, "actors.max=2"), resumed, on_iteration=Interrupt(3, signal.SIGTERM))
    assert json.loads((resumed / "run.json").read_text())["state"] == "interrupted"
    assert len(read_metrics(resumed)) == 3
    train(config(tmp_path, "actors.max=2"), resumed, resume=True)
    assert_same_run(straight, resumed)
    for name in ("best", "start"):
        mine, theirs = load_policy(straight / name).state_dict(), load_policy(resumed / name).state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_sampling_ahead_uses_every_group_once_through_an_interruption(tmp_path: Path) -> None:
    run_dir = tmp_path / "ahead"
    settings = config(tmp_path, "rollout.max_policy_lag=1", "run.iterations=6", "run.sample_every=1")
    with pytest.raises(KeyboardInterrupt):
        train(settings, run_dir, on_iteration=Interrupt(3))
    plans = load_checkpoint(list_checkpoints(run_dir)[-1]).plans
    assert (plans.next_group, len(plans.open_groups)) in ((12, 3), (15, 6))
    train(settings, run_dir, resume=True)
    rows = read_metrics(run_dir)
    assert len(rows) == 6
    assert all(row["policy_lag_max"] <= 1 for row in rows)
    files = [run_dir / "samples" / f"iteration_{i:06d}.parquet" for i in range(1, 7)]
    groups = [set(pq.read_table(file, columns=["group"])["group"].to_pylist()) for file in files]
    assert all(len(iteration) == 3 for iteration in groups)
    assert set().union(*groups) == set(range(18))


def test_group_that_always_fails_is_in_the_report_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> Any:
        server = start_fake_reward_server()
        ray.get(server.set.remote(0.0, 4))
        return server

    monkeypatch.setattr(elign.launch, "start_reward_server", start)
    train(config(tmp_path, "actors.max_tries=2"), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [row["plans_set_aside"] for row in rows] == [0.0, 1.0, 0.0, 0.0]
    assert [row["molecules"] for row in rows] == [12.0, 8.0, 12.0, 12.0]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Groups set aside" in page
    assert "ValueError: no reward today; ValueError: no reward today" in page


def test_run_directory_holds_what_it_promises(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = config(tmp_path, "run.checkpoint_every=1", "learner.kl_coefficient=0.1")
    seen: list[Row] = []
    summary = train(settings, run_dir, on_iteration=seen.append)
    rows = read_metrics(run_dir)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert repr(seen) == repr(rows)  # NaN differs from itself
    assert repr(summary["last"]) == repr(rows[-1])
    assert rows[0]["ratio_max_deviation"] > 0
    assert all(row["skipped_optimizer_steps"] == 0 and row["optimizer_steps"] == 6 for row in rows)
    assert all(row["kl"] > 0 for row in rows)
    assert all(row["learning_rate"] > 0 for row in rows)
    assert [path.name for path in list_checkpoints(run_dir)] == ["iteration_000003", "iteration_000004"]
    assert len(read_molecules(run_dir / "samples" / "iteration_000002.parquet")) == 12
    before, after = (read_molecules(run_dir / f"{name}.parquet") for name in ("before", "after"))
    assert torch.equal(before.node_mask, after.node_mask)
    assert load_config(None, run_dir / "config.yaml", []) == settings
    assert json.loads((run_dir / "run.json").read_text())["state"] == "finished"
    assert list((run_dir / "tensorboard").iterdir())
    assert (run_dir / "report.html").exists()
    assert load_policy(run_dir).spec == load_policy(run_dir / "start").spec


def test_used_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        train(config(tmp_path), tmp_path / "run")


def test_settings_that_leave_nothing_to_train_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learner\.skip_last = 3 leaves nothing to train.*leave 3 steps"):
        train(config(tmp_path, "learner.skip_last=3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shipped_policy_and_force_field_train_and_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elign.launch, "start_reward_server", start_reward_server)
    sizes = ("rollout.num_steps=12", "rollout.groups=3", "rollout.samples_per_group=4", "run.iterations=2")
    shorter = (*sizes, "learner.skip_last=2", "run.checkpoint_every=1", "run.sample_every=1")
    settings = load_config("laptop", None, shorter)
    train(settings, tmp_path / "straight")
    one_actor = settings.model_copy(update={"actors": settings.actors.model_copy(update={"max": 1})})
    with pytest.raises(KeyboardInterrupt):
        train(one_actor, tmp_path / "resumed", on_iteration=Interrupt(1))
    train(one_actor, tmp_path / "resumed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    row = read_metrics(tmp_path / "straight")[-1]
    assert math.isfinite(row["rms_force_mean"])
    assert row["optimizer_steps"] > 0
    assert row["grad_norm"] > 0


@pytest.mark.slow
def test_learner_that_is_killed_costs_what_came_after_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[FedGrpo] = []
    killed: list[float] = []

    def remember(*arguments: Any) -> FedGrpo:
        built.append(build_algorithm(*arguments))
        return built[-1]

    def kill_a_learner(row: Row) -> None:
        if row["iteration"] == 3 and not killed:
            killed.append(row["iteration"])
            first, _ = built[-1].learner_group.foreach_learner(lambda _: os.getpid())
            os.kill(first.get(), signal.SIGKILL)

    monkeypatch.setattr(elign.launch, "build_algorithm", remember)

    settings = config(tmp_path, "learner.learners=2")
    train(settings, tmp_path / "straight")
    summary = train(settings, tmp_path / "killed", on_iteration=kill_a_learner)
    assert killed == [3]
    assert summary["completed_iterations"] == 4
    assert "going on from iteration 2" in caplog.text
    assert_same_run(tmp_path / "straight", tmp_path / "killed")
