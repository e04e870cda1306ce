"""How much memory a rollout needs, from its sizes: what an actor's process grows by while it samples a group.

    memory = rollout_memory(shape, group, device="cpu")
    memory.total                     # bytes on top of a process that has built its policy

n atoms, K samples, state width D, hidden width H, T' trained and S shared steps, in float32 (4 bytes):

    weights     2 x 4 x parameters          as they come from the object store, and copied
    noise       4 n D (S + 1 + K T')        drawn before the first step
    trajectory  3 x 4 (T' + 1) K n D        states one by one, stacked, and packed for the learner
    step        4 x 4 K n^2 H               tensors over pairs that one step has at a time
"""

from __future__ import annotations

from dataclasses import dataclass

from elign.common.network_cost import FLOAT_BYTES, NetworkShape, num_parameters

STEP_TENSORS = 4
"""Tensors [K, n, n, H] alive at once in a forward evaluation without gradients."""
TRAJECTORY_COPIES = 3
WEIGHT_COPIES = 2
MAPPED_BLOCK_BYTES = 32 << 20
HEAP_FACTOR = 3
"""The C library takes smaller blocks than ``MAPPED_BLOCK_BYTES`` from a heap full of gaps: measured, it holds
about three times what is alive. Larger blocks are mapped one by one and go back at once."""


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
    """Bytes by purpose; see the module's text. step: as the heap holds it."""

    weights: int
    noise: int
    trajectory: int
    step: int

    @property
    def total(self) -> int:
        return self.weights + self.noise + self.trajectory + self.step


def rollout_memory(shape: NetworkShape, group: GroupSize, *, device: str) -> RolloutMemory:
    """device: kind of device, ``cpu`` or ``cuda``; on the latter it is all of the GPU's and the host's together."""
    block = FLOAT_BYTES * group.num_samples * group.num_atoms**2 * shape.hidden
    return RolloutMemory(
        weights=WEIGHT_COPIES * FLOAT_BYTES * num_parameters(shape),
        noise=noise_bytes(group),
        trajectory=TRAJECTORY_COPIES * trajectory_bytes(group),
        step=held_bytes(STEP_TENSORS * block, block, device=device),
    )


def trajectory_bytes(group: GroupSize) -> int:
    """What a trajectory keeps for the learner: z [T' + 1, K, n, D] in float32, log_prob [T', K] in float64."""
    states = (group.trained_steps + 1) * group.num_samples * group.num_atoms * group.state_dim
    return FLOAT_BYTES * states + 2 * FLOAT_BYTES * group.trained_steps * group.num_samples


def noise_bytes(group: GroupSize) -> int:
    """The prefix's noise of one sample and the start, and the branches' of K."""
    draws = group.shared_steps + 1 + group.trained_steps * group.num_samples
    return FLOAT_BYTES * draws * group.num_atoms * group.state_dim


def held_bytes(alive: int, block: int, *, device: str) -> int:
    """What the process holds for ``alive`` bytes in blocks of ``block`` bytes that come and go."""
    return alive * HEAP_FACTOR if device == "cpu" and block < MAPPED_BLOCK_BYTES else alive
