"""How much memory the learner needs, from its sizes: what its process grows by in an iteration.

    memory = learner_memory(shape, sizes, device="cpu", threads=2)

G groups' trajectories (``common.memory_cost``), R rows of N atoms and width D, P pairs of atoms in a chunk,
L layers of hidden width H, all in float32 (4 bytes):

    trajectories  2 x G x trajectory                this iteration's and the last one's
    rows          4 x R (2 x 4 N D + N + 48)        built, joined, shuffled, and as tensors
    optimizer     4 x 4 x parameters                two moments, the gradient, the published weights
    chunks        threads x 4 P H (8 L + 4)         what a chunk keeps for its backward pass
"""

from __future__ import annotations

from dataclasses import dataclass

from elign.common.memory_cost import GroupSize, held_bytes, trajectory_bytes
from elign.common.network_cost import FLOAT_BYTES, NetworkShape, num_parameters
from elign.learner.row_scoring import MAX_PAIRS

KEPT_ITERATIONS = 2
ROW_COPIES = 4
ROW_EXTRAS_BYTES = 48
"""t, s, step, group, behaviour's log-probability, advantage and weight of a row."""
OPTIMIZER_COPIES = 4
SAVED_TENSORS = 8
"""Tensors [P, H] that a block keeps for its backward pass: four in each of its two pair networks."""
PASSING_TENSORS = 4
"""Tensors [P, H] that come and go in between."""


@dataclass(frozen=True)
class UpdateSize:
    """An iteration's G groups, each at most ``group``; R rows in all, in minibatches."""

    group: GroupSize
    num_groups: int
    num_rows: int
    minibatch_size: int


@dataclass(frozen=True)
class LearnerMemory:
    """Bytes by purpose; see the module's text. chunks: as the heap holds them."""

    trajectories: int
    rows: int
    optimizer: int
    chunks: int

    @property
    def total(self) -> int:
        return self.trajectories + self.rows + self.optimizer + self.chunks


def learner_memory(shape: NetworkShape, size: UpdateSize, *, device: str, threads: int) -> LearnerMemory:
    """threads: chunks that are worked on at a time. device: kind of the learner's device."""
    group = size.group
    row = 2 * FLOAT_BYTES * group.num_atoms * group.state_dim + group.num_atoms + ROW_EXTRAS_BYTES
    return LearnerMemory(
        trajectories=KEPT_ITERATIONS * size.num_groups * trajectory_bytes(group),
        rows=ROW_COPIES * size.num_rows * row,
        optimizer=OPTIMIZER_COPIES * FLOAT_BYTES * num_parameters(shape),
        chunks=threads * chunk_bytes(shape, chunk_pairs(size, device), device=device),
    )


def chunk_pairs(size: UpdateSize, device: str) -> int:
    """Most pairs of atoms in a chunk: the limit, but one molecule at least and a minibatch at most."""
    molecule = size.group.num_atoms**2
    return min(max(MAX_PAIRS[device], molecule), size.minibatch_size * molecule)


def chunk_bytes(shape: NetworkShape, pairs: int, *, device: str) -> int:
    """What a forward and backward pass over a chunk of so many pairs holds."""
    block = FLOAT_BYTES * pairs * shape.hidden
    saved, passing = SAVED_TENSORS * shape.num_layers * block, PASSING_TENSORS * block
    # what is saved stays until it is used, so only what passes leaves gaps
    return saved + held_bytes(passing, block, device=device)
