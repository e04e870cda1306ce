"""Plans and trajectories: the datum that goes once round from the driver over an actor to the learner.

A plan is a unit of work that any actor may take: its random numbers come from its own seed, so the same plan
and weights give the same trajectory wherever it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from elign.common.compact_pickle import CompactPickle
from elign.common.molecules import Molecules
from elign.common.scoring import RewardAnswer


@dataclass(frozen=True)
class RolloutPlan:
    """One group: K samples of one prompt.

    A prompt is a number of atoms, the elements where the composition is given, and the value of the policy's
    condition where it has one.
    """

    group_id: int
    num_atoms: int
    num_samples: int
    seed: int
    elements: tuple[int, ...] | None = None
    context: float | None = None


@dataclass(frozen=True)
class Trajectory(CompactPickle):
    """What a group's samples did after the branch; K samples of n atoms, state width D = 3 + F.

    times: T'+1 descending diffusion times, times[0] the branch state, times[-1] = 0.
    z: [T'+1, K, n, D]. log_prob: [T', K] under the policy that sampled, float64.
    potential_steps, predicted: see ``RewardQuery``. molecules: the K final molecules, decoded once.
    """

    plan: RolloutPlan
    policy_version: int
    times: tuple[int, ...]
    z: Tensor
    log_prob: Tensor
    potential_steps: tuple[int, ...]
    predicted: Molecules
    molecules: Molecules


@dataclass(frozen=True)
class ScoredTrajectory:
    """A trajectory and its rewards.

    seconds: what ``sampling`` took by the clock, and of the processor, ``sampling_cpu``.
    """

    trajectory: Trajectory
    rewards: RewardAnswer
    seconds: dict[str, float]


@dataclass(frozen=True)
class SetAside:
    """A plan that was given up; causes: what went wrong in each try."""

    plan: RolloutPlan
    causes: tuple[str, ...]

    def __str__(self) -> str:
        tries = "; ".join(f"try {i}: {cause}" for i, cause in enumerate(self.causes, 1))
        plan = self.plan
        return f"group {plan.group_id} ({plan.num_samples} molecules of {plan.num_atoms} atoms): {tries}"


@dataclass(frozen=True)
class Collection:
    """Trajectories by ascending group id, and what was seen since the collection before.

    plans_rerun: how often a plan was given out again. set_aside: plans that were given up. actor_seconds: how
    long actors were there to sample, summed over them; waiting_seconds: of these, when one had no plan left
    but those whose rewards were still to come.
    """

    scored: list[ScoredTrajectory]
    plans_rerun: int
    set_aside: tuple[SetAside, ...] = ()
    actor_seconds: float = 0.0
    waiting_seconds: float = 0.0
