"""Everything a learner must remember to go on exactly: trained weights, their average, AdamW's moments.

Random numbers and learning rate are functions of seed and iteration, so they are no state.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LearnerState:
    """Copies on the CPU, by parameter name.

    weights: the policy's state dict. average: the EMA of the weights, None when none is kept.
    moments: AdamW's ``<parameter>/step``, ``/exp_avg`` and ``/exp_avg_sq``; empty before the first step.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    moments: dict[str, Tensor]

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """The weights to sample with: the average where one is kept."""
        return self.weights if self.average is None else self.average
