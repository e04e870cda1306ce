"""The optimizer of pre-training: Muon for the hidden matrices of the network, AdamW for the rest.

Muon orthogonalizes the momentum of a matrix before it is applied (Jordan et al. 2024), which makes a step of
equal size in all directions (compared with AdamW in ``tests/benchmarks/pretraining_recipes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from elign.common.policy import DiffusionPolicy
from elign.common.training_state import read_moments, write_moments

_NARROW = 2
"""Matrices with no more rows or columns are vectors in disguise (attention, distances): AdamW's."""


class PretrainOptimizer:
    """Both optimizers as one; learning rates are given with every step."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.policy = policy
        hidden: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in policy.named_parameters():
            is_matrix = parameter.ndim == 2 and min(parameter.shape) > _NARROW and ".blocks." in name
            (hidden if is_matrix else rest).append(parameter)
        self._muon = torch.optim.Muon(hidden, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-6)
        self._in_muon = {id(parameter) for parameter in hidden}

    def step(self, loss: Tensor, *, muon_rate: float, adam_rate: float, grad_clip: float) -> None:
        """Gradients of ``loss``, clipped to the norm ``grad_clip``, and one step."""
        self.policy.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), grad_clip)
        for optimizer, rate in ((self._muon, muon_rate), (self._adam, adam_rate)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()  # type: ignore[no-untyped-call]

    def read(self) -> dict[str, Tensor]:
        """Copies of all moments, keyed ``parameter/field``."""
        return read_moments(self._muon, self.policy) | read_moments(self._adam, self.policy)

    def write(self, moments: Mapping[str, Tensor]) -> None:
        """Put back what ``read`` gave. Raises CheckpointError where names or shapes do not fit."""
        muon: dict[str, Tensor] = {}
        adam: dict[str, Tensor] = {}
        parameters = dict(self.policy.named_parameters())
        for key, value in moments.items():
            owner = parameters.get(key.rsplit("/", 1)[0])
            (muon if id(owner) in self._in_muon else adam)[key] = value
        write_moments(self._muon, self.policy, muon)
        write_moments(self._adam, self.policy, adam)
