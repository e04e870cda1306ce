"""Where the learner gets scored trajectories from; ``actors.pool`` is one, ``launch`` passes it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from elign.common.rollout import Collection, RolloutPlan


class RolloutSource(Protocol):
    """Turns plans into scored trajectories; it may work on them while nobody waits."""

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Use these weights for what is begun from now on."""
        ...

    def submit(self, plans: Sequence[RolloutPlan]) -> None:
        """Begin with these as soon as possible."""
        ...

    def take(self, number: int) -> Collection:
        """Wait until that many of the submitted plans are finished; each comes exactly once."""
        ...

    def forget(self) -> None:
        """Drop all that was submitted and not taken."""
        ...

    def stop(self) -> None:
        """Give back all that was held."""
        ...
