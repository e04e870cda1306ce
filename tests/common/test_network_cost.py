"""Promises of the operation count: it is that of the real network, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from elign.common.network_cost import (
    Cost,
    NetworkShape,
    evaluation_cost,
    num_parameters,
    product,
    sampling_cost,
    update_cost,
)
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.rollout import RolloutPlan
from elign.common.sampling import sample_group

# A faster network may do a small product without a matrix product (or none at all where a gradient is not
# needed); the large ones are what counts.
CLOSE = 0.06
SPECS = [
    PolicySpec(hidden=64, num_layers=2),
    PolicySpec(hidden=96, num_layers=3, attention=False),
    PolicySpec(dataset="geom", includes_charges=False, hidden=128, num_layers=1),
    PolicySpec(hidden=96, num_layers=4, num_radial=4),
]


def _counted(policy: DiffusionPolicy, num_molecules: int, num_atoms: int, *, backward: bool) -> int:
    mask = torch.ones(num_molecules, num_atoms, dtype=torch.bool)
    z = torch.randn(num_molecules, num_atoms, policy.state_dim)
    time = torch.full((num_molecules,), 500)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        eps = policy.eps(z, time, mask)
        if backward:
            eps.square().sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.num_layers}x{spec.hidden}")
@pytest.mark.parametrize(("num_molecules", "num_atoms"), [(1, 9), (4, 20)])
def test_the_count_of_an_evaluation_is_that_of_the_network(
    spec: PolicySpec, num_molecules: int, num_atoms: int
) -> None:
    policy, shape = DiffusionPolicy(spec), NetworkShape.of(spec)
    forward = evaluation_cost(shape, num_molecules=num_molecules, num_atoms=num_atoms).flops
    assert _counted(policy, num_molecules, num_atoms, backward=False) == pytest.approx(forward, rel=CLOSE)
    both = update_cost(shape, {num_atoms: num_molecules}, epochs=1, with_reference=False).flops
    assert _counted(policy, num_molecules, num_atoms, backward=True) == pytest.approx(both, rel=CLOSE)


def test_the_count_of_a_group_is_that_of_sampling_it() -> None:
    spec, plan = SPECS[0], RolloutPlan(0, 15, 5, seed=0)
    with FlopCounterMode(display=False) as counter:
        sample_group(
            DiffusionPolicy(spec),
            plan,
            num_steps=6,
            shared_prefix=0.5,
            potential_steps=lambda _: (),
            policy_version=0,
        )
    expected = sampling_cost(NetworkShape.of(spec), [plan], num_steps=6, shared_prefix=0.5).flops
    assert counter.get_total_flops() == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.num_layers}x{spec.hidden}")
def test_parameters_are_counted(spec: PolicySpec) -> None:
    policy = DiffusionPolicy(spec)
    assert num_parameters(NetworkShape.of(spec)) == sum(p.numel() for p in policy.parameters())


def test_a_reference_costs_one_more_evaluation_however_many_epochs() -> None:
    shape = NetworkShape.of(SPECS[0])
    one = evaluation_cost(shape, num_molecules=7, num_atoms=9)
    assert update_cost(shape, {9: 7}, epochs=1, with_reference=True) == one * 4
    assert update_cost(shape, {9: 7}, epochs=3, with_reference=True) == one * 10
    assert update_cost(shape, {}, epochs=1, with_reference=True) == Cost()


def test_a_product_reads_its_operands_and_writes_its_result() -> None:
    assert product(2, 3, 5) == Cost(60, 4 * (6 + 15 + 10))
    assert product(2, 3, 5, batch=10) == product(2, 3, 5) * 10
