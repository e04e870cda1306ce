"""The local environment runner that RLlib insists on; it runs nothing.

Trajectories come from the pool of rollout actors (see ``fed_grpo.RolloutSource``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable


class LocalRunner(EnvRunner, Checkpointable):  # type: ignore[misc]
    """Answers RLlib's questions about spaces and state, with nothing in them."""

    def assert_healthy(self) -> None:
        """Nothing can break."""

    def sample(self, **_: Any) -> list[Any]:
        return []

    def get_spaces(self) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
        empty = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        return {INPUT_ENV_SPACES: (empty, empty), DEFAULT_MODULE_ID: (empty, empty)}

    def get_state(
        self,
        components: str | Collection[str] | None = None,  # noqa: ARG002
        *,
        not_components: str | Collection[str] | None = None,  # noqa: ARG002
        **_: Any,
    ) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to set."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"config": self.config}

    def get_metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = Checkpointable.get_metadata(self)
        return metadata
