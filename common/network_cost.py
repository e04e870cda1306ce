"""What the network's matrix products cost: floating-point operations and bytes, from its layers' shapes.

    shape = NetworkShape.of(policy.spec)
    cost = evaluation_cost(shape, num_molecules=16, num_atoms=18)
    cost.flops, cost.bytes

Only matrix products count: they are the arithmetic that no cleverness removes, and what a device's ceiling
is measured with. Activations, norms and sums come on top in time, not in the count. The products are those of
the factored edge networks of ``egnn``, for all N x N pairs of a molecule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from elign.common.datasets import get_dataset
from elign.common.policy import PolicySpec
from elign.common.rollout import RolloutPlan
from elign.common.sampling import branch_index

FLOAT_BYTES = 4
BACKWARD_EVALUATIONS = 2
"""A backward pass has two products for each one forward: the gradient of the input, and of the weight."""


@dataclass(frozen=True)
class NetworkShape:
    """What of a policy decides on its cost. features: width of the network's input and output."""

    features: int
    hidden: int
    num_layers: int
    attention: bool
    num_radial: int

    @classmethod
    def of(cls, spec: PolicySpec) -> NetworkShape:
        """The shape of the network that this specification builds."""
        types = len(get_dataset(spec.dataset).atomic_numbers) + int(spec.includes_charges)
        features = types + 1 + len(spec.conditioning)
        return cls(features, spec.hidden, spec.num_layers, spec.attention, spec.num_radial)


@dataclass(frozen=True)
class Cost:
    """flops: multiplications and additions, each one. bytes: operands and results of the products, each once.

    The bytes are a lower bound for code that does one product after the other, wherever they go: through the
    memory, or through a cache where they fit into one. Only a kernel that fuses products needs fewer.
    """

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.flops * times, self.bytes * times)


def product(rows: int, inner: int, columns: int, *, batch: int = 1) -> Cost:
    """[rows, inner] @ [inner, columns] in float32, ``batch`` times."""
    moved = rows * inner + inner * columns + rows * columns
    return Cost(2 * batch * rows * inner * columns, FLOAT_BYTES * batch * moved)


def evaluation_cost(shape: NetworkShape, *, num_molecules: int, num_atoms: int) -> Cost:
    """One forward evaluation of a batch of equally large molecules."""
    nodes, pairs, hidden = num_molecules * num_atoms, num_molecules * num_atoms**2, shape.hidden
    # target and source of h, the distances, their radial features, the second map
    pair_network = product(nodes, hidden, hidden) * 2 + product(pairs, 2, hidden)
    if shape.num_radial:
        pair_network += product(pairs, shape.num_radial, hidden)
    pair_network += product(pairs, hidden, hidden)
    block = pair_network * 2
    block += product(1, num_atoms, hidden, batch=nodes)  # the weighted sum over neighbours
    block += product(nodes, 2 * hidden, hidden) + product(nodes, hidden, hidden)
    block += product(pairs, hidden, 1) * (2 if shape.attention else 1)
    embeddings = product(nodes, shape.features, hidden) + product(nodes, hidden, shape.features)
    return block * shape.num_layers + embeddings


def sampling_cost(
    shape: NetworkShape, plans: Iterable[RolloutPlan], *, num_steps: int, shared_prefix: float
) -> Cost:
    """Groups sampled as ``sample_group`` does: the prefix once, then K branches and their decoding."""
    branch = branch_index(num_steps, shared_prefix)
    total = Cost()
    for plan in plans:
        prefix = evaluation_cost(shape, num_molecules=1, num_atoms=plan.num_atoms)
        step = evaluation_cost(shape, num_molecules=plan.num_samples, num_atoms=plan.num_atoms)
        total += prefix * branch + step * (num_steps - branch + 1)
    return total


def update_cost(
    shape: NetworkShape, rows_by_size: Mapping[int, int], *, epochs: int, with_reference: bool
) -> Cost:
    """A forward and backward for each row and epoch, and one forward of the reference where there is one.

    rows_by_size: number of atoms -> rows of that size; rows of a size count as one batch.
    """
    evaluations = epochs * (1 + BACKWARD_EVALUATIONS) + int(with_reference)
    total = Cost()
    for num_atoms, rows in rows_by_size.items():
        total += evaluation_cost(shape, num_molecules=rows, num_atoms=num_atoms) * evaluations
    return total


def num_parameters(shape: NetworkShape) -> int:
    """Trained numbers of the network."""
    hidden, features = shape.hidden, shape.features
    # target with bias, source, second with bias; distances and their radial features
    pair_network = 3 * hidden**2 + 2 * hidden + (2 + shape.num_radial) * hidden
    block = 2 * pair_network + (3 * hidden**2 + 2 * hidden) + hidden
    block += hidden + 1 if shape.attention else 0
    return shape.num_layers * block + 2 * hidden * features + hidden + features
