"""The Ray actor that samples: it owns a device and a policy, and asks the reward server itself."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import ray
import torch

from elign.actors.rollout import device_of, reward_query, roll_out
from elign.common.config import RewardSettings, RolloutSettings
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import ProcessUsage, process_usage
from elign.common.rollout import RolloutPlan, ScoredTrajectory


@dataclass(frozen=True)
class PublishedWeights:
    """Weights in the object store and their version.

    reference: a one-element list, so that Ray passes the reference and not what it points to; an actor
    fetches a version once.
    """

    reference: list[Any]
    version: int


class RolloutActor:
    """Runs plans one at a time.

    It is built from plain settings, and what lives elsewhere comes with each request, so Ray can start it
    anew at any time.
    """

    def __init__(
        self,
        policy_spec: dict[str, Any],
        rollout: RolloutSettings,
        reward: RewardSettings,
    ) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._rollout, self._reward = rollout, reward
        self._policy = DiffusionPolicy(PolicySpec.model_validate(policy_spec)).to(device_of(rollout)).eval()
        self._version: int | None = None
        self._name = ray.get_runtime_context().get_actor_id()

    def run(self, plan: RolloutPlan, weights: PublishedWeights, reward_server: Any) -> ScoredTrajectory:
        """Sample the plan's group under ``weights`` and wait for its rewards."""
        started, processor = time.perf_counter(), time.process_time()
        self._use(weights)
        trajectory = roll_out(self._policy, plan, self._rollout, self._reward, policy_version=weights.version)
        sampled, processor = time.perf_counter(), time.process_time() - processor
        rewards = ray.get(reward_server.score.remote(reward_query(trajectory), caller=self._name))
        seconds = {
            "sampling": sampled - started,
            "sampling_cpu": processor,
            "rewards": time.perf_counter() - sampled,
        }
        return ScoredTrajectory(trajectory, rewards, seconds)

    def ping(self) -> int:
        """The process id: proof of life."""
        return os.getpid()

    def usage(self) -> ProcessUsage:
        """What this process has used so far."""
        return process_usage()

    def _use(self, weights: PublishedWeights) -> None:
        if weights.version != self._version:
            arrays = ray.get(weights.reference[0])
            self._policy.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
            self._version = weights.version
