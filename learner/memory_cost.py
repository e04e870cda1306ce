"""How much memory the learner needs, from its sizes: what its process grows by in an iteration.

    memory = learner_memory(shape, size, device="cpu", threads=2)

G groups' trajectories (``common.memory_cost``), R rows of N atoms and width D, P pairs of atoms in a chunk
(``pair_budget``, but one molecule at least), L layers of hidden width H, in float32 (4 bytes):

    trajectories  2 x G x trajectory                this iteration's and the last one's
    rows          4 x R (2 x 4 N D + N + 56)        built, joined, shuffled, and as tensors
    reference     4 N D R                           its means, where there is a KL term
    optimizer     (4 + threads) x 4 x parameters    two moments, published weights, sum and chunks' gradients
    chunks        threads x 4 P H (8 L + 4)         what a chunk keeps for its backward pass, and what passes

On a CPU the process holds twice the chunks' bytes (``common.memory_cost.HEAP_FACTOR``).
"""

from __future__ import annotations

from dataclasses import dataclass

from elign.common.memory_cost import HEAP_FACTOR, GroupSize, pairs_at_once, trajectory_bytes
from elign.common.network_cost import FLOAT_BYTES, NetworkShape, num_parameters

KEPT_ITERATIONS = 2
ROW_COPIES = 4
ROW_EXTRAS_BYTES = 56
"""t, s, step, group, number, behaviour's log-probability, advantage and weight of a row."""
OPTIMIZER_COPIES = 4
SAVED_TENSORS = 8
"""Tensors [P, H] that a block keeps for its backward pass: four in each of its two pair networks."""
PASSING_TENSORS = 4
"""Tensors [P, H] that come and go in between."""


@dataclass(frozen=True)
class UpdateSize:
    """An iteration's G groups, each at most ``group``; R rows in all, and so many in a minibatch."""

    group: GroupSize
    num_groups: int
    num_rows: int
    minibatch_size: int
    with_reference: bool


@dataclass(frozen=True)
class LearnerMemory:
    """Bytes by purpose, see the module's text; chunks: as the process holds them."""

    trajectories: int
    rows: int
    reference: int
    optimizer: int
    chunks: int

    @property
    def total(self) -> int:
        return self.trajectories + self.rows + self.reference + self.optimizer + self.chunks


def learner_memory(shape: NetworkShape, size: UpdateSize, *, device: str, threads: int) -> LearnerMemory:
    """threads: chunks that are worked on at a time. device: ``cpu`` or ``cuda``, the learner's."""
    group = size.group
    row = 2 * FLOAT_BYTES * group.num_atoms * group.state_dim + group.num_atoms + ROW_EXTRAS_BYTES
    pairs = pairs_at_once(shape, group.num_atoms, size.minibatch_size, device)
    return LearnerMemory(
        trajectories=KEPT_ITERATIONS * size.num_groups * trajectory_bytes(group),
        rows=ROW_COPIES * size.num_rows * row,
        reference=FLOAT_BYTES * group.num_atoms * group.state_dim * size.num_rows * int(size.with_reference),
        optimizer=(OPTIMIZER_COPIES + threads) * FLOAT_BYTES * num_parameters(shape),
        chunks=HEAP_FACTOR[device] * threads * chunk_bytes(shape, pairs),
    )


def chunk_bytes(shape: NetworkShape, pairs: int) -> int:
    """What is alive in a forward and backward pass over a chunk of so many pairs."""
    return FLOAT_BYTES * pairs * shape.hidden * (SAVED_TENSORS * shape.num_layers + PASSING_TENSORS)
