"""The state of a force field's training: weights, their average, optimizer, step; saved and resumed."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from elign.common.errors import CheckpointError
from elign.common.training_state import load_training, save_training
from elign.reward_server.force_field_optimizer import ForceFieldOptimizer
from elign.reward_server.force_field_settings import ForceFieldTrainingSettings

_LOSS_MEMORY = 0.99
_MAY_DIFFER = {"epochs", "processes"}


class TrainingState:
    """``network`` is trained; ``averaged`` is its exponential moving average, and what is used in the end."""

    def __init__(self, network: nn.Module, settings: ForceFieldTrainingSettings) -> None:
        self.network = network
        self.averaged = copy.deepcopy(network)
        self.step = 0
        self.mean_loss = 0.0
        self._seconds_before = 0.0
        self._begin = time.monotonic()
        self._settings = settings
        self._optimizer = ForceFieldOptimizer(network)

    @property
    def seconds(self) -> float:
        """Wall-clock time of training, interrupted runs included."""
        return self._seconds_before + time.monotonic() - self._begin

    def update(self, loss: Tensor, factor: float) -> None:
        """One optimizer step on ``loss`` with ``factor`` of the learning rates, and one of the average."""
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.grad_clip)
        settings = self._settings
        self._optimizer.step(
            muon_rate=factor * settings.learning_rate, adam_rate=factor * settings.adam_learning_rate
        )
        self.step += 1
        decay = min(self._settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        memory = min(_LOSS_MEMORY, 1 - 1 / self.step)
        self.mean_loss = memory * self.mean_loss + (1 - memory) * float(loss.detach())

    def save(self, folder: Path) -> None:
        """Write everything atomically."""
        parts = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "moments": self._optimizer.read(),
        }
        counters = {
            "settings": self._settings.model_dump(mode="json", exclude=_MAY_DIFFER),
            "step": self.step,
            "mean_loss": self.mean_loss,
            "seconds": self.seconds,
        }
        save_training(folder, parts, counters)

    def load(self, folder: Path) -> None:
        """Read back what ``save`` wrote; ``epochs`` may differ, to train for longer, and ``processes``.

        Raises CheckpointError when damaged, or made with other settings.
        """
        parts, counters = load_training(folder)
        if counters["settings"] != self._settings.model_dump(mode="json", exclude=_MAY_DIFFER):
            raise CheckpointError(
                f"{folder} was made with other settings; delete it to train from the start, "
                "or use another folder"
            )
        self.step, self.mean_loss = counters["step"], counters["mean_loss"]
        self._seconds_before = counters["seconds"]
        self.network.load_state_dict(parts["network"])
        self.averaged.load_state_dict(parts["averaged"])
        self._optimizer.write(parts["moments"])
