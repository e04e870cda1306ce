"""Sampling of one composition: it holds, the steps are the policy's own, the assignment is the best one."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from elign.common.fixed_composition import FixedComposition, posterior
from elign.common.policy import DiffusionPolicy, PolicySpec, project
from elign.common.sampling import sample_molecules


@pytest.fixture(name="policy", scope="module")
def _policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(PolicySpec(hidden=16, num_layers=2)).eval()


def _states(policy: DiffusionPolicy, count: int, atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(count, atoms, dtype=torch.bool)
    noise = torch.randn(count, atoms, policy.state_dim, generator=torch.Generator().manual_seed(0))
    return project(noise, mask), mask


def test_every_molecule_has_the_composition_and_a_seed_gives_one_result(policy: DiffusionPolicy) -> None:
    formula = [1, 8, 6, 1, 6, 1, 1]
    first, again = (
        sample_molecules(policy, [7] * 4, num_steps=6, seed=1, elements=formula) for _ in range(2)
    )
    assert first.atomic_numbers.sort(1).values.tolist() == [sorted(formula)] * 4
    torch.testing.assert_close(first.positions.mean(1), torch.zeros(4, 3), atol=1e-4, rtol=0)
    assert torch.equal(first.positions, again.positions)


def test_elements_must_fit(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="2 elements do not fit"):
        sample_molecules(policy, [2, 3], num_steps=2, seed=0, elements=[6, 1])
    with pytest.raises(ValueError, match="atomic numbers"):
        sample_molecules(policy, [2], num_steps=2, seed=0, elements=[92, 1])


@torch.no_grad()
def test_a_prediction_that_is_not_changed_leaves_the_transition_as_it_is(policy: DiffusionPolicy) -> None:
    z, mask = _states(policy, 2, 5)
    for t, s in [(900, 850), (300, 299), (20, 0)]:
        step = policy.transition(z, torch.full((2,), t), torch.full((2,), s), mask)
        mu, sigma = posterior(policy, z, step.z0_hat.double(), t, s)
        torch.testing.assert_close(mu, step.mu, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(sigma, step.sigma[:1])


def test_the_assignment_is_the_best_of_all(policy: DiffusionPolicy) -> None:
    z, _ = _states(policy, 3, 4)
    composition = FixedComposition(policy, [1, 6, 7, 8])
    nearest = composition.nearest(z)
    assert torch.equal(nearest[..., :3], z[..., :3])
    for state, chosen in zip(z[..., 3:], nearest[..., 3:], strict=True):
        others = [float((state - chosen[list(order)]).square().sum()) for order in permutations(range(4))]
        assert float((state - chosen).square().sum()) == pytest.approx(min(others), rel=1e-5)


def test_a_constrained_step_keeps_positions(policy: DiffusionPolicy) -> None:
    z, mask = _states(policy, 2, 3)
    composition = FixedComposition(policy, [6, 1, 1])
    moved = composition.constrain(z, z + 1.0, z, 500, 400, torch.zeros_like(z))
    assert torch.equal(moved[..., :3], (z + 1.0)[..., :3])
    assert moved.dtype == z.dtype
    assert bool(mask.all())


def test_a_state_that_has_run_away_stops_nobody(policy: DiffusionPolicy) -> None:
    z, _ = _states(policy, 2, 3)
    z[0] = torch.nan
    nearest = FixedComposition(policy, [6, 1, 1]).nearest(z)
    assert bool(nearest[1].isfinite().all())
