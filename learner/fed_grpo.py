"""FED-GRPO as an RLlib algorithm: one ``training_step`` is one round of sampling, judging and learning.

The rollouts come from a ``RolloutSource`` (a pool of Ray actors), not from RLlib's environment runners; RLlib
carries the loop, the learner group and what Tune needs.

    config = FedGrpoConfig().fed_grpo(train_config=..., start_policy="runs/first/start", make_source=...)
    algorithm = config.build_algo()
    algorithm.train()
    algorithm.iteration_metrics          # this iteration's figures
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from elign.common.checkpoint import load_policy
from elign.common.config import TrainConfig
from elign.common.errors import LearnerError
from elign.common.policy import PolicySpec
from elign.common.process_usage import ProcessUsage, process_usage
from elign.common.prompts import Prompts
from elign.common.rollout import ScoredTrajectory, SetAside
from elign.learner.advantages import Advantages, ChannelWeights, group_advantages, mixed_advantages
from elign.learner.fed_grpo_learner import EPOCH, LEARNING_RATE, NUM_ROWS, NUM_STEPS, FedGrpoLearner
from elign.learner.learner_state import LearnerState
from elign.learner.local_runner import LocalRunner
from elign.learner.loss import UpdateStatistics
from elign.learner.lr_schedule import learning_rate
from elign.learner.plan_feed import PlanFeed, PlanState
from elign.learner.policy_module import PolicyModule
from elign.learner.rollout_metrics import rollout_metrics
from elign.learner.rollout_source import RolloutSource
from elign.learner.transitions import (
    Rows,
    build_rows,
    choose_steps,
    lay_out_minibatches,
    num_rows,
    rows_by_size,
)

_NORMALIZATIONS = {"disentangled": group_advantages, "mixed": mixed_advantages}


class FedGrpoConfig(AlgorithmConfig):  # type: ignore[misc]
    """RLlib's settings of the algorithm; Elign's own are in ``train_config``, read-only."""

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or FedGrpo)
        self.train_config = TrainConfig()
        self.start_policy = ""
        self.policy_spec: dict[str, Any] = {}
        self.make_source: Callable[[TrainConfig], RolloutSource] | None = None
        self.env_runners(env_runner_cls=LocalRunner, num_env_runners=0)
        self.framework("torch")
        # RLlib would seed the process's global generators; ours belong to plans and iterations
        self.seed = None

    def fed_grpo(
        self,
        *,
        train_config: TrainConfig,
        start_policy: str | Path,
        make_source: Callable[[TrainConfig], RolloutSource],
    ) -> FedGrpoConfig:
        """Set what a run needs.

        start_policy: name or folder of the policy to start from, which is also the reference of the KL term.
        make_source: called once, when the algorithm is built, with its settings; it must survive being copied
        and pickled.
        """
        self.train_config = train_config
        self.start_policy = str(start_policy)
        self.policy_spec = load_policy(start_policy).spec.model_dump(mode="json")
        self.make_source = make_source
        learners = train_config.learner.learners
        self.learners(
            num_learners=learners if learners > 1 else 0, num_gpus_per_learner=train_config.learner.num_gpus
        )
        return self

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        with_reference = self.train_config.learner.kl_coefficient > 0
        return RLModuleSpec(
            module_class=PolicyModule,
            model_config={
                "spec": self.policy_spec,
                "with_reference": with_reference,
                "positions_only": bool(self.train_config.rollout.formulas),
            },
        )

    def get_default_learner_class(self) -> type[FedGrpoLearner]:
        return FedGrpoLearner


class FedGrpo(Algorithm):  # type: ignore[misc]
    """See the module's text. After each ``train()``: ``iteration_metrics``, ``scored``, ``set_aside``,
    ``rows_by_size``, and ``usages`` of the learners' processes (the driver's, where there is one learner)."""

    @classmethod
    def get_default_config(cls) -> FedGrpoConfig:
        return FedGrpoConfig()

    def setup(self, config: FedGrpoConfig) -> None:
        super().setup(config)
        self.settings: TrainConfig = config.train_config
        start = load_policy(config.start_policy)
        self.spec: PolicySpec = start.spec
        self._start_weights: dict[str, Tensor] = dict(start.state_dict())
        self.completed_iterations = 0
        self.iteration_metrics: dict[str, float] = {}
        self.scored: list[ScoredTrajectory] = []
        self.set_aside: tuple[SetAside, ...] = ()
        self.rows_by_size: dict[int, int] = {}
        self.usages: list[ProcessUsage] = []
        if config.make_source is None:
            raise ValueError("FedGrpoConfig.fed_grpo(make_source=...) was not called")
        self._source = config.make_source(self.settings)
        self._feed = PlanFeed(self._source, self.settings, Prompts.of(self.settings.rollout, self.spec))
        self.import_state(LearnerState(self._start_weights, None, {}), PlanState(), completed_iterations=0)

    def import_state(self, state: LearnerState, plans: PlanState, *, completed_iterations: int) -> None:
        """Go on from where ``state`` and ``plans`` were exported; exactly, unless sampling runs ahead."""
        reference = self._start_weights
        for result in self.learner_group.foreach_learner(
            lambda learner: learner.import_state(state, reference)
        ):
            _answer(result)
        self.completed_iterations = completed_iterations
        self._feed.restore(plans)

    @property
    def plan_state(self) -> PlanState:
        """Goes with ``export_state``."""
        return self._feed.state

    def export_state(self) -> LearnerState:
        """All that the learners must remember; equal on every learner."""
        state: LearnerState = _first(
            self.learner_group.foreach_learner(lambda learner: learner.export_state())
        )
        return state

    def training_step(self) -> None:
        """One iteration, start to end; raises LearnerError when a learner's process died."""
        try:
            self._iterate()
        except RayError as error:
            raise LearnerError(f"a learner died ({type(error).__name__})") from error

    def _iterate(self) -> None:
        started = time.perf_counter()
        self._publish_weights()
        published = time.perf_counter()

        harvest = self._feed.gather(self.completed_iterations)
        scored = harvest.scored
        collected = time.perf_counter()

        advantages = self._advantages(scored)
        rows = build_rows(scored, advantages, self._trained_steps(scored), self.completed_iterations)
        prepared, processor = time.perf_counter(), time.process_time()

        statistics = self._update(rows, max(len(s.trajectory.times) - 1 for s in scored))
        updated, processor = time.perf_counter(), time.process_time() - processor

        self.scored, self.set_aside, self.rows_by_size = scored, harvest.set_aside, rows_by_size(rows)
        self.iteration_metrics = {
            "iteration": float(self.completed_iterations + 1),
            **rollout_metrics(scored, advantages, self.settings.reward, self.spec.dataset),
            **statistics.metrics(),
            "learning_rate": self._learning_rate(),
            "policy_version": float(self.completed_iterations),
            **harvest.metrics(),
            "idle_share_learner": (collected - published) / (updated - started),
            "time_broadcast_s": published - started,
            "time_rollout_s": collected - published,
            "time_advantages_s": prepared - collected,
            "time_update_s": updated - prepared,
            "time_update_cpu_s": processor,
            "time_iteration_s": time.perf_counter() - started,
        }
        used = self.learner_group.foreach_learner(lambda _: process_usage())
        self.usages = [_answer(result) for result in used]
        self.completed_iterations += 1
        self.metrics.log_dict(self.iteration_metrics, key="elign", window=1)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state (for Tune), with the iterations done; Elign's own runs use ``export_state``."""
        own = {"completed_iterations": self.completed_iterations, "plans": self.plan_state}
        return {**super().get_state(*args, **kwargs), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.completed_iterations = state["completed_iterations"]
        self._feed.restore(state["plans"])

    def cleanup(self) -> None:
        """Stop learners and rollouts."""
        super().cleanup()
        self._source.stop()

    def _advantages(self, scored: Sequence[ScoredTrajectory]) -> list[Advantages]:
        reward = self.settings.reward
        weights = ChannelWeights(reward.force_weight, reward.energy_weight, reward.stability_weight)
        learner = self.settings.learner
        advantages = _NORMALIZATIONS[learner.normalization]
        return [advantages(s.rewards, weights, learner.advantage_clip) for s in scored]

    def _learning_rate(self) -> float:
        return learning_rate(self.completed_iterations, self.settings.run.iterations, self.settings.learner)

    def _update(self, rows: Rows, num_steps: int) -> UpdateStatistics:
        """Some epochs over the rows, each shuffled anew; nothing at all when no sample could be judged.

        num_steps: T', the trained steps of a trajectory.
        """
        total = UpdateStatistics.empty(num_steps)
        for epoch in range(self.settings.learner.epochs if num_rows(rows) else 0):
            total.merge(self._update_epoch(rows, epoch, num_steps))
        return total

    def _trained_steps(self, scored: Sequence[ScoredTrajectory]) -> list[np.ndarray]:
        learner, seed = self.settings.learner, self.settings.run.seed
        return [
            choose_steps(
                len(s.trajectory.times) - 1,
                skip_last=learner.skip_last,
                wanted=learner.steps_per_iteration,
                rng=np.random.default_rng((seed, s.trajectory.plan.group_id)),
            )
            for s in scored
        ]

    def _update_epoch(self, rows: Rows, epoch: int, num_steps: int) -> UpdateStatistics:
        layout = lay_out_minibatches(
            rows,
            num_learners=max(len(self.learner_group), 1),
            minibatch_size=self.settings.learner.minibatch_size,
            rng=np.random.default_rng((self.settings.run.seed, self.completed_iterations, epoch)),
        )
        batch = MultiAgentBatch(
            {DEFAULT_MODULE_ID: SampleBatch(layout.rows)}, env_steps=num_rows(layout.rows)
        )
        self.learner_group.update(
            training_data=TrainingData(batch=batch),
            timesteps={
                LEARNING_RATE: self._learning_rate(),
                NUM_STEPS: num_steps,
                NUM_ROWS: num_rows(rows),
                EPOCH: epoch,
            },
            num_epochs=1,
            minibatch_size=layout.rows_per_minibatch,
        )
        return _sum_statistics(self.learner_group.foreach_learner(lambda learner: learner.take_statistics()))

    def _publish_weights(self) -> None:
        weights = _first(self.learner_group.foreach_learner(lambda learner: learner.export_weights()))
        self._source.publish(weights, self.completed_iterations)


def _answer(result: Any) -> Any:
    """A learner's answer; raises what it raised."""
    answer = result.get()
    if not result.ok:
        raise answer
    return answer


def _first(results: Any) -> Any:
    """The first learner's answer, once all have answered well."""
    first, *_ = [_answer(result) for result in results]
    return first


def _sum_statistics(results: Any) -> UpdateStatistics:
    """Rows of all learners together; optimizer steps are common to them and count once."""
    total: UpdateStatistics
    total, *others = [_answer(result) for result in results]
    for other in others:
        total.merge_rows(other)
    return total
