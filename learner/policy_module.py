"""RLlib's shell around the diffusion policy: what a learner holds and differentiates.

model_config: ``spec`` (``PolicySpec.model_dump(mode="json")``), ``with_reference`` (a frozen copy of the
starting policy for the KL term) and ``positions_only`` (see ``DiffusionPolicy.log_prob``). Weights come
through ``load_policies``: building the module needs no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.learner.row_scoring import score_rows

LOG_PROB, KL, MU_REFERENCE = "log_prob", "kl", "mu_reference"


class PolicyModule(TorchRLModule):  # type: ignore[misc]
    """``policy`` is trained; ``reference`` (or None) is frozen."""

    def setup(self) -> None:
        spec = PolicySpec.model_validate(self.model_config["spec"])
        self.policy = DiffusionPolicy(spec)
        self.reference = (
            DiffusionPolicy(spec).requires_grad_(False) if self.model_config["with_reference"] else None
        )

    def load_policies(self, weights: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> None:
        """Set the trained weights and those of the reference, where there is one."""
        self.policy.load_state_dict(weights)
        if self.reference is not None:
            self.reference.load_state_dict(reference)

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Log-probability of one chunk of rows [B], and its KL where it comes with the reference's means."""
        scores = score_rows(
            self.policy,
            batch,
            batch.get(MU_REFERENCE),
            positions_only=self.model_config["positions_only"],
        )
        return (
            {LOG_PROB: scores.log_prob} if scores.kl is None else {LOG_PROB: scores.log_prob, KL: scores.kl}
        )
