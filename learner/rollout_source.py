"""Where the learner gets scored trajectories from; ``actors.pool`` is one, ``launch`` passes it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from elign.common.rollout import Collection, RolloutPlan


class RolloutSource(Protocol):
    """Turns plans into scored trajectories under the published weights."""

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Use these weights from now on."""
        ...

    def collect(self, plans: Sequence[RolloutPlan]) -> Collection:
        """Every plan exactly once; raises RolloutError when one cannot be completed."""
        ...

    def stop(self) -> None:
        """Give back all that was held."""
        ...
