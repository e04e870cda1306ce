"""How much memory a rollout needs, from its sizes: what an actor's process grows by while it samples a group.

    memory = rollout_memory(shape, group, device="cpu")
    memory.total                     # bytes on top of a process that has built its policy

n atoms, K samples, state width D, hidden width H, S shared and T' trained steps, P pairs of atoms that the
network sees at once (``pair_budget``, but one molecule at least), in float32 (4 bytes):

    weights     2 x 4 x parameters          as they come from the object store, and copied
    noise       4 n D (S + 1 + K T')        drawn before the first step
    trajectory  3 x 4 (T' + 1) K n D        states one by one, stacked, and packed for the learner
    step        4 x 4 P H                   tensors over pairs that one step has at a time

On a CPU the process holds twice the step's bytes, see ``HEAP_FACTOR``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from elign.common.batching import pair_budget
from elign.common.network_cost import FLOAT_BYTES, NetworkShape, num_parameters

STEP_TENSORS = 4
"""Tensors [P, H] alive at once in an evaluation without gradients."""
TRAJECTORY_COPIES = 3
WEIGHT_COPIES = 2
HEAP_FACTOR = {"cpu": 2, "cuda": 1}
"""What a process holds for a byte that comes and goes, by kind of device: a CPU's heap is full of gaps
(measured 1.8 to 2.5), a GPU's allocator reuses equal blocks."""


@dataclass(frozen=True)
class GroupSize:
    """One group: n atoms, K samples, shared and trained steps, width D of a state."""

    num_atoms: int
    num_samples: int
    shared_steps: int
    trained_steps: int
    state_dim: int


@dataclass(frozen=True)
class RolloutMemory:
    """Bytes by purpose, see the module's text; step: as the process holds it."""

    weights: int
    noise: int
    trajectory: int
    step: int

    @property
    def total(self) -> int:
        return self.weights + self.noise + self.trajectory + self.step


def rollout_memory(shape: NetworkShape, group: GroupSize, *, device: str) -> RolloutMemory:
    """device: ``cpu`` or ``cuda``; with the latter, the GPU's memory and the process's together."""
    block = FLOAT_BYTES * shape.hidden * pairs_at_once(shape, group.num_atoms, group.num_samples, device)
    return RolloutMemory(
        weights=WEIGHT_COPIES * FLOAT_BYTES * num_parameters(shape),
        noise=noise_bytes(group),
        trajectory=TRAJECTORY_COPIES * trajectory_bytes(group),
        step=HEAP_FACTOR[device] * STEP_TENSORS * block,
    )


def pairs_at_once(shape: NetworkShape, num_atoms: int, num_molecules: int, device: str) -> int:
    """Most pairs of atoms in one piece of so many molecules of up to ``num_atoms``."""
    budget = pair_budget(torch.device(device), shape.hidden)
    return min(max(num_atoms**2, budget), num_molecules * num_atoms**2)


def trajectory_bytes(group: GroupSize) -> int:
    """What the learner gets: z [T' + 1, K, n, D] in float32, log_prob [T', K] in float64."""
    states = (group.trained_steps + 1) * group.num_samples * group.num_atoms * group.state_dim
    return FLOAT_BYTES * states + 2 * FLOAT_BYTES * group.trained_steps * group.num_samples


def noise_bytes(group: GroupSize) -> int:
    """The prefix's noise of one sample and the start, and the branches' of K."""
    draws = group.shared_steps + 1 + group.trained_steps * group.num_samples
    return FLOAT_BYTES * draws * group.num_atoms * group.state_dim
