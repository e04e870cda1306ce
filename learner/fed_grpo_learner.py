"""The FED-GRPO update as an RLlib learner: loss, AdamW, clipping, skipped steps, averaged weights.

RLlib builds the learners, slices the minibatches and keeps the state; what is particular to FED-GRPO is here.
The mathematics is in ``loss``.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn

from elign.common.batching import pair_budget
from elign.common.config import TrainConfig
from elign.common.process_memory import keep_freed_memory
from elign.common.training_state import copy_tensors, read_moments, write_moments
from elign.learner.chunk_gradients import ChunkRunner, Gradients, add_gradients, average_over_learners
from elign.learner.learner_state import LearnerState
from elign.learner.loss import LossTerms, UpdateStatistics, fed_grpo_loss
from elign.learner.policy_module import KL, LOG_PROB, MU_REFERENCE, PolicyModule
from elign.learner.proximal import ProximalPolicy
from elign.learner.reference_means import ReferenceMeans
from elign.learner.row_scoring import split_rows
from elign.learner.transitions import ADVANTAGE, LOG_PROB_BEHAVIOUR, STEP, WEIGHT, from_float64_bits

LEARNING_RATE, NUM_STEPS, NUM_ROWS, EPOCH = "learning_rate", "num_steps", "num_rows", "epoch"
"""Keys of the ``timesteps`` argument of ``update``: this update's rate, the number T' of its steps, the rows
of the whole iteration, and which pass over them this is."""

AVERAGE = "average"


class FedGrpoLearner(TorchLearner):  # type: ignore[misc]
    """One learner of the group; with several, each sees its shard of every minibatch."""

    @property
    def train_config(self) -> TrainConfig:
        config: TrainConfig = self.config.train_config
        return config

    @property
    def policy_module(self) -> PolicyModule:
        module: PolicyModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        return optimizer

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained ones; the reference's are frozen."""
        return list(self.policy_module.policy.parameters())

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:  # noqa: ARG002
        keep_freed_memory()  # a learner may have a process of its own
        settings = self.train_config.learner
        optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=self.parameters)
        self._average = None if settings.ema_decay is None else copy_tensors(self._weights())
        self._statistics = UpdateStatistics.empty(0)
        self._max_pairs = pair_budget(self.device, self.policy_module.policy.spec.hidden)
        self._reference_means: ReferenceMeans | None = None
        self._proximal: ProximalPolicy | None = None
        self._runner = ChunkRunner(torch.get_num_threads() if self.device.type == "cpu" else 1)

    def shutdown(self) -> None:
        """End the threads."""
        self._runner.close()
        super().shutdown()

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Set this iteration's learning rate; begin new statistics."""
        super().before_gradient_based_update(timesteps=timesteps)
        for group in self.optimizer.param_groups:
            group["lr"] = timesteps[LEARNING_RATE]
        self._statistics = UpdateStatistics.empty(timesteps[NUM_STEPS])
        if timesteps[EPOCH] == 0:
            self._begin_iteration(timesteps[NUM_ROWS])

    def _begin_iteration(self, num_rows: int) -> None:
        module = self.policy_module
        self._proximal = ProximalPolicy(module.policy, positions_only=module.model_config["positions_only"])
        if module.reference is not None:
            self._reference_means = ReferenceMeans(module.reference, num_rows)

    def _update(
        self, batch: dict[str, Any], **_: Any
    ) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        """One optimizer step: gradients chunk by chunk, averaged over the learners; then clip and step."""
        total = torch.zeros((), device=self.device)
        gradients: Gradients = [None] * len(self.parameters)
        if self._reference_means is not None:
            self._reference_means.prepare(batch[DEFAULT_MODULE_ID])
        chunks = split_rows(batch[DEFAULT_MODULE_ID], self._max_pairs)
        for chunk, terms, chunk_gradients in self._runner.run(chunks, self._loss, self.parameters):
            total += terms.loss
            add_gradients(gradients, chunk_gradients)
            self._statistics.add_rows(
                terms, chunk[WEIGHT] > 0, chunk[STEP], self.train_config.learner.kl_coefficient
            )
        if self.distributed:
            gradients = average_over_learners(gradients)
        self.apply_gradients(dict(zip(self.parameters, gradients, strict=True)))
        return {}, {DEFAULT_MODULE_ID: total}, {}

    def compute_loss_for_module(
        self,
        *,
        module_id: str,  # noqa: ARG002
        config: Any,  # noqa: ARG002
        batch: dict[str, Tensor],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        """RLlib's name for the loss of some rows."""
        return self._terms(batch, fwd_out).loss

    def _loss(self, rows: dict[str, Tensor]) -> LossTerms:
        if self._reference_means is not None:
            rows = {**rows, MU_REFERENCE: self._reference_means.of(rows)}
        return self._terms(rows, self.policy_module.forward_train(rows))

    def _terms(self, rows: dict[str, Tensor], fwd_out: dict[str, Tensor]) -> LossTerms:
        assert self._proximal is not None
        settings = self.train_config.learner
        return fed_grpo_loss(
            log_prob=fwd_out[LOG_PROB],
            log_prob_proximal=self._proximal.log_prob(rows),
            log_prob_behaviour=from_float64_bits(rows[LOG_PROB_BEHAVIOUR]),
            advantage=rows[ADVANTAGE],
            weight=rows[WEIGHT],
            kl=fwd_out.get(KL),
            clip_range=settings.clip_range,
            kl_coefficient=settings.kl_coefficient,
        )

    def _make_modules_ddp_if_necessary(self) -> None:
        """No DDP wrapper: its hooks see only backward(); ``_update`` averages the gradients itself."""

    def apply_gradients(self, gradients_dict: dict[Any, Tensor | None]) -> None:
        """Clip by global norm and step; a gradient that is not finite is left out and counted."""
        for parameter, gradient in gradients_dict.items():
            parameter.grad = gradient
        norm = nn.utils.get_total_norm([g for g in gradients_dict.values() if g is not None])
        finite = bool(torch.isfinite(norm))
        if finite:
            nn.utils.clip_grads_with_norm_(self.parameters, self.train_config.learner.grad_clip, norm)
            self.optimizer.step()
            self._update_average()
        self._statistics.add_step(float(norm), skipped=not finite)

    def take_statistics(self) -> UpdateStatistics:
        """Sums of the last ``update``."""
        return self._statistics

    def export_weights(self) -> dict[str, Tensor]:
        """A copy of the trained weights, for the rollout actors."""
        return copy_tensors(self._weights())

    def export_state(self) -> LearnerState:
        """A copy of all that must survive."""
        return LearnerState(
            weights=copy_tensors(self._weights()),
            average=None if self._average is None else copy_tensors(self._average),
            moments=read_moments(self.optimizer, self.policy_module.policy),
        )

    def import_state(self, state: LearnerState, reference: dict[str, Tensor]) -> None:
        """Go on from ``state``; reference: weights of the starting policy."""
        self.policy_module.load_policies(state.weights, reference)
        write_moments(self.optimizer, self.policy_module.policy, state.moments)
        if self._average is not None:
            start = state.weights if state.average is None else state.average
            self._average = {name: tensor.to(self.device, copy=True) for name, tensor in start.items()}

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state (for Tune), with the averaged weights."""
        return {**super().get_state(*args, **kwargs), AVERAGE: self._average}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._average = state.get(AVERAGE, self._average)

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.policy_module.policy.state_dict()
        return weights

    def _update_average(self) -> None:
        decay = self.train_config.learner.ema_decay
        if self._average is None or decay is None:
            return
        for name, weight in self._weights().items():
            self._average[name].lerp_(weight, 1.0 - decay)
