"""The Ray actor that samples: it owns a device and a policy, and sends its molecules to the reward server."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from elign.actors.rollout import device_of, reward_query, roll_out
from elign.common.config import ActorSettings, RewardSettings, RolloutSettings
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import ProcessUsage, process_usage
from elign.common.rollout import RolloutPlan, Trajectory


@dataclass(frozen=True)
class PublishedWeights:
    """Weights in the object store and their version.

    reference: a one-element list, so that Ray passes the reference and not what it points to; an actor
    fetches a version once.
    """

    reference: list[Any]
    version: int


@dataclass(frozen=True)
class Whereabouts:
    """Of an actor. node_id: Ray's, hexadecimal."""

    process_id: int
    node_id: str


@dataclass(frozen=True)
class Sampled:
    """A trajectory whose rewards are on their way.

    rewards: a one-element list with the reference to the ``RewardAnswer``, which is lost if this actor dies.
    seconds: ``sampling`` by the clock, ``sampling_cpu`` of the processor.
    """

    trajectory: Trajectory
    rewards: list[Any]
    seconds: dict[str, float]


class RolloutActor:
    """Samples plans one at a time, and does not wait for their rewards."""

    def __init__(
        self,
        policy_spec: dict[str, Any],
        rollout: RolloutSettings,
        reward: RewardSettings,
        actors: ActorSettings,
    ) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._rollout, self._reward = rollout, reward
        self._policy = DiffusionPolicy(PolicySpec.model_validate(policy_spec)).to(device_of(actors)).eval()
        self._version: int | None = None
        self._name = ray.get_runtime_context().get_actor_id()

    def warm_up(self) -> Whereabouts:
        """Load what the first plan would have to wait for, and say where this process is."""
        short = self._rollout.model_copy(update={"num_steps": 2, "shared_prefix": 0.5})
        context = 0.0 if self._policy.spec.conditioning else None
        plan = RolloutPlan(group_id=0, num_atoms=2, num_samples=2, seed=0, context=context)
        roll_out(self._policy, plan, short, self._reward, policy_version=0)
        return Whereabouts(os.getpid(), ray.get_runtime_context().get_node_id())

    def sample(self, plan: RolloutPlan, weights: PublishedWeights, reward_server: Any) -> Sampled:
        """Sample the plan's group under ``weights`` and ask for its rewards."""
        started, processor = time.perf_counter(), time.process_time()
        self._use(weights)
        trajectory = roll_out(self._policy, plan, self._rollout, self._reward, policy_version=weights.version)
        seconds = {
            "sampling": time.perf_counter() - started,
            "sampling_cpu": time.process_time() - processor,
        }
        rewards = reward_server.score.remote(reward_query(trajectory), caller=self._name)
        return Sampled(trajectory, [rewards], seconds)

    def ping(self) -> None:
        """Proof of life."""

    def usage(self) -> ProcessUsage:
        """What this process has used so far."""
        return process_usage()

    def _use(self, weights: PublishedWeights) -> None:
        if weights.version != self._version:
            arrays = ray.get(weights.reference[0])
            self._policy.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
            self._version = weights.version


def start_rollout_actor(
    policy_spec: dict[str, Any], rollout: RolloutSettings, reward: RewardSettings, actors: ActorSettings
) -> Any:
    """A handle; the actor comes up by itself, as soon as the cluster has room for it."""
    options: dict[str, Any] = {
        "num_cpus": actors.num_cpus,
        "num_gpus": actors.num_gpus,
        "max_restarts": 0,  # the roster replaces it: a restarted one would not be where it was
        "max_task_retries": 0,
        # not in the placement group of whoever builds the pool: Tune must not count it as a trial's
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=None),
    }
    return ray.remote(RolloutActor).options(**options).remote(policy_spec, rollout, reward, actors)
