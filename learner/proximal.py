"""Log-probabilities under the proximal policy: the one that an update starts from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from elign.common.policy import DiffusionPolicy
from elign.learner.row_scoring import score_rows
from elign.learner.transitions import LOG_PROB_BEHAVIOUR, STALE, WEIGHT, from_float64_bits


class ProximalPolicy:
    """A copy of the policy as it is now, asked only about rows that an older one sampled."""

    def __init__(self, policy: DiffusionPolicy, *, positions_only: bool) -> None:
        self._policy = copy.deepcopy(policy).requires_grad_(False)
        self._positions_only = positions_only

    @torch.no_grad()
    def log_prob(self, chunk: Mapping[str, Tensor]) -> Tensor:
        """[b] float64 of a chunk's rows; of those that are not stale, the recorded ones."""
        log_prob = from_float64_bits(chunk[LOG_PROB_BEHAVIOUR])
        asked = chunk[STALE] & (chunk[WEIGHT] > 0)
        if bool(asked.any()):
            rows = {name: column[asked] for name, column in chunk.items()}
            log_prob = log_prob.clone()
            log_prob[asked] = score_rows(self._policy, rows, positions_only=self._positions_only).log_prob
        return log_prob
