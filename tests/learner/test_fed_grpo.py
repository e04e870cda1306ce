"""The algorithm on RLlib, rollouts made in this process: updates, skipped steps, averages, two learners."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from torch import Tensor

from elign.common.checkpoint import save_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.policy import PolicySpec
from elign.common.rollout import Collection, RolloutPlan, ScoredTrajectory
from elign.common.sampling import sample_group
from elign.common.scoring import Failure
from elign.learner.fed_grpo import FedGrpo, FedGrpoConfig
from elign.learner.learner_state import LearnerState
from tests.learner import rollouts
from tests.learner.rollouts import random_rewards, tiny_policy

# learners in processes of their own cannot import the tests, so these modules travel as they are
for module in (sys.modules[__name__], rollouts):
    ray.cloudpickle.register_pickle_by_value(module)

SETTINGS = (
    "rollout.num_steps=6",
    "rollout.shared_prefix=0.5",
    "rollout.groups=3",
    "rollout.samples_per_group=4",
    "learner.learning_rate=1e-3",
    "learner.minibatch_size=12",
    "learner.clip_range=0.2",
    "learner.kl_coefficient=0.01",
    "learner.skip_last=1",
    "run.iterations=10",
)
CLOCK = ("time_", "idle_share")


class LocalSource:
    """Samples in this process; ``spoil`` may change a group's answer."""

    def __init__(self, spec: PolicySpec, spoil: str, _: TrainConfig) -> None:
        self.policy, self.spoil, self.version = tiny_policy(**spec.model_dump()), spoil, -1
        self.done: list[ScoredTrajectory] = []

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        self.policy.load_state_dict(weights)
        self.version = version

    def submit(self, plans: Sequence[RolloutPlan]) -> None:
        self.done += [self._run(plan) for plan in plans]

    def take(self, number: int) -> Collection:
        taken, self.done = self.done[:number], self.done[number:]
        return Collection(taken, plans_rerun=0, actor_seconds=10.0)

    def forget(self) -> None:
        self.done = []

    def stop(self) -> None:
        """Nothing is held."""

    def _run(self, plan: RolloutPlan) -> ScoredTrajectory:
        trajectory = sample_group(
            self.policy,
            plan,
            num_steps=6,
            shared_prefix=0.5,
            potential_steps=lambda _: (),
            policy_version=self.version,
        )
        rewards = random_rewards(3, plan.num_samples, plan.group_id)
        if self.spoil == "unknown":
            nobody = torch.zeros(plan.num_samples, dtype=torch.bool)
            failures = (Failure.SEVERAL_PIECES,) * plan.num_samples
            rewards = replace(
                rewards, force_mask=nobody, energy_mask=rewards.energy.isnan(), failures=failures
            )
        if self.spoil == "nan":
            trajectory = replace(trajectory, log_prob=trajectory.log_prob * math.nan)
        return ScoredTrajectory(trajectory, rewards, {"sampling": 1.0, "sampling_cpu": 0.9})


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=f"/tmp/elign-ray-{os.getpid()}"
    )
    yield
    ray.shutdown()


def build(tmp_path: Path, *overrides: str, spoil: str = "") -> FedGrpo:
    policy = tiny_policy()
    save_policy(policy, tmp_path / "policy")
    settings: TrainConfig = load_config(
        None, None, [f"policy.checkpoint={tmp_path / 'policy'}", *SETTINGS, *overrides]
    )
    config = FedGrpoConfig().fed_grpo(
        train_config=settings,
        start_policy=tmp_path / "policy",
        make_source=partial(LocalSource, policy.spec, spoil),
    )
    algorithm: FedGrpo = config.build_algo(use_copy=False)
    return algorithm


def flat(state: LearnerState) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in state.weights.values()])


def train(algorithm: FedGrpo, iterations: int) -> list[dict[str, float]]:
    rows = []
    for _ in range(iterations):
        algorithm.train()
        rows.append(dict(algorithm.iteration_metrics))
    return rows


def test_iterations_change_the_weights_and_report_every_figure(tmp_path: Path) -> None:
    algorithm = build(tmp_path)
    before = flat(algorithm.export_state())
    rows = train(algorithm, 2)
    assert not torch.equal(before, flat(algorithm.export_state()))
    assert rows[0].keys() == rows[1].keys()
    assert [row["policy_version"] for row in rows] == [0, 1]
    assert rows[0]["optimizer_steps"] == 2
    assert rows[0]["kl"] >= 0
    assert algorithm.scored[0].trajectory.policy_version == 1
    assert {f"failures_{kind.value}" for kind in Failure} <= rows[0].keys()
    algorithm.stop()


def test_first_minibatch_has_ratio_one(tmp_path: Path) -> None:
    algorithm = build(tmp_path, "learner.minibatch_size=10000")
    (row,) = train(algorithm, 1)
    assert row["optimizer_steps"] == 1
    assert row["ratio_max_deviation"] < 1e-5
    assert row["clip_fraction"] == 0
    assert row["kl"] == 0
    algorithm.stop()


def test_gradient_that_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    algorithm = build(tmp_path, spoil="nan")
    before = algorithm.export_state()
    (row,) = train(algorithm, 1)
    assert row["skipped_optimizer_steps"] == 2
    assert row["optimizer_steps"] == 0
    after = algorithm.export_state()
    assert torch.equal(flat(before), flat(after))
    assert not after.moments
    algorithm.stop()


def test_iteration_without_any_known_reward_changes_nothing(tmp_path: Path) -> None:
    algorithm = build(tmp_path, spoil="unknown")
    before = flat(algorithm.export_state())
    (row,) = train(algorithm, 1)
    assert torch.equal(before, flat(algorithm.export_state()))
    assert row["optimizer_steps"] == 0
    assert row["failures_several_pieces"] == 12
    assert math.isnan(row["reward_force"])
    algorithm.stop()


def test_average_follows_the_weights(tmp_path: Path) -> None:
    algorithm = build(tmp_path, "learner.ema_decay=0.75", "learner.minibatch_size=10000")
    start = algorithm.export_state()
    train(algorithm, 1)
    state = algorithm.export_state()
    assert state.average is not None
    for name, average in state.average.items():
        expected = start.weights[name] + 0.25 * (state.weights[name] - start.weights[name])
        assert torch.allclose(average, expected, atol=1e-7)
    assert state.best_weights is state.average
    algorithm.stop()


def test_importing_an_exported_state_goes_on_exactly(tmp_path: Path) -> None:
    algorithm = build(tmp_path)
    train(algorithm, 1)
    state, plans = algorithm.export_state(), algorithm.plan_state
    first = train(algorithm, 1)[0]
    end = flat(algorithm.export_state())
    algorithm.import_state(state, plans, completed_iterations=1)
    again = train(algorithm, 1)[0]
    assert torch.equal(end, flat(algorithm.export_state()))
    assert all(first[name] == again[name] for name in first if not name.startswith(CLOCK))
    algorithm.stop()


def test_rllib_checkpoint_goes_on_exactly_too(tmp_path: Path) -> None:
    algorithm = build(tmp_path, "learner.ema_decay=0.75")
    train(algorithm, 1)
    algorithm.save_to_path(tmp_path / "checkpoint")
    first, end = train(algorithm, 1)[0], algorithm.export_state()
    algorithm.stop()
    restored = build(tmp_path, "learner.ema_decay=0.75")
    restored.restore_from_path(tmp_path / "checkpoint")
    again, other = train(restored, 1)[0], restored.export_state()
    assert all(first[name] == again[name] for name in first if not name.startswith(CLOCK))
    assert torch.equal(flat(end), flat(other))
    assert end.average is not None
    assert other.average is not None
    assert all(torch.equal(end.average[name], other.average[name]) for name in end.average)
    restored.stop()


def test_sampling_ahead_keeps_the_lag_and_uses_every_group_once(tmp_path: Path) -> None:
    algorithm = build(tmp_path, "rollout.max_policy_lag=1", "run.iterations=4")
    seen, lags = [], []
    for row in (train(algorithm, 1)[0] for _ in range(4)):
        seen += [s.trajectory.plan.group_id for s in algorithm.scored]
        lags.append((row["policy_lag_mean"], row["plans_dropped_stale"]))
        assert algorithm.plan_state.next_group == min(3 * (row["iteration"] + 1), 12)
    assert seen == list(range(12))
    assert lags == [(0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]
    algorithm.stop()


def test_the_first_minibatch_of_stale_groups_has_ratio_one(tmp_path: Path) -> None:
    algorithm = build(
        tmp_path, "rollout.max_policy_lag=1", "run.iterations=4", "learner.minibatch_size=10000"
    )
    rows = train(algorithm, 3)
    assert [row["policy_lag_mean"] for row in rows] == [0.0, 1.0, 1.0]
    assert all(row["ratio_max_deviation"] < 1e-5 for row in rows)
    algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("minibatch", "lag"), [(7, 0), (12, 0), (1000, 0), (12, 1)])
def test_several_learners_equal_one(tmp_path: Path, minibatch: int, lag: int) -> None:
    """36 or fewer rows: also where the last minibatch is shorter, or a learner gets fewer rows."""
    ends = []
    for learners in (1, 2):
        batch = f"learner.minibatch_size={minibatch}"
        ahead = f"rollout.max_policy_lag={lag}"
        algorithm = build(tmp_path, f"learner.learners={learners}", batch, ahead)
        train(algorithm, 2)
        ends.append(flat(algorithm.export_state()))
        algorithm.stop()
    assert float((ends[0] - ends[1]).abs().max()) < 1e-5
