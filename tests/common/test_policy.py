"""The policy's promises: symmetric, normalized, decoded for both feature layouts."""

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import Tensor

from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, PolicySpec, centre, project
from elign.common.sampling import sample_molecules


def make_policy(dataset: str = "qm9", **changes: object) -> DiffusionPolicy:
    torch.manual_seed(0)
    charges = dataset == "qm9"
    spec = PolicySpec.model_validate(
        {"dataset": dataset, "hidden": 16, "num_layers": 2, "includes_charges": charges, **changes}
    )
    return DiffusionPolicy(spec).eval()


def noisy_states(policy: DiffusionPolicy, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    z = torch.randn(len(sizes), max(sizes), policy.state_dim, generator=torch.Generator().manual_seed(1))
    dtype = next(policy.parameters()).dtype
    return project(z.to(dtype), mask), mask


@pytest.mark.parametrize("dataset", ["qm9", "geom"])
def test_transition_is_equivariant(dataset: str) -> None:
    policy = make_policy(dataset).double()
    z, mask = noisy_states(policy, (5, 3, 2))
    torch.manual_seed(3)
    rotation = -o3.rand_matrix(dtype=torch.float64)
    turned = torch.cat([z[..., :3] @ rotation.T, z[..., 3:]], -1)
    t, s = torch.tensor([700, 30, 2]), torch.tensor([650, 10, 0])
    with torch.no_grad():
        step, step2 = policy.transition(z, t, s, mask), policy.transition(turned, t, s, mask)
    for a, b in ((step.mu, step2.mu), (step.z0_hat, step2.z0_hat)):
        torch.testing.assert_close(a[..., :3] @ rotation.T, b[..., :3], rtol=0, atol=1e-8)
        torch.testing.assert_close(a[..., 3:], b[..., 3:], rtol=0, atol=1e-8)


def test_log_prob_is_the_density_on_the_centred_subspace() -> None:
    policy = make_policy().double()
    z, mask = noisy_states(policy, (4, 2))
    sigma = torch.tensor([0.3, 1.7], dtype=torch.float64)
    mu = torch.zeros_like(z)
    expected = []
    for i, n in enumerate((4, 2)):
        # an orthonormal basis of the subspace gives plain independent coordinates
        basis = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.eye(n)[:, 1:]], 1).double()).Q[:, 1:]
        free = torch.cat([(basis.T @ z[i, :n, :3]).flatten(), z[i, :n, 3:].flatten()])
        expected.append(torch.distributions.Normal(0.0, sigma[i]).log_prob(free).sum())
    torch.testing.assert_close(
        policy.log_prob(z, mu, sigma, mask), torch.stack(expected), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("dataset", ["qm9", "geom"])
def test_encode_then_decode_gives_the_molecule_back(dataset: str) -> None:
    policy = make_policy(dataset)
    rng = np.random.default_rng(0)
    kinds = np.array(policy.atom_types)
    numbers = [kinds, kinds[::-1][:4], kinds[-1:].repeat(2)]
    molecules = Molecules.from_lists(numbers, [rng.normal(size=(len(z), 3)) for z in numbers])
    back = policy.decode(policy.encode(molecules), molecules.node_mask)
    assert torch.equal(back.atomic_numbers, molecules.atomic_numbers)
    torch.testing.assert_close(
        back.positions, centre(molecules.positions, molecules.node_mask), rtol=0, atol=1e-6
    )


def test_encode_names_foreign_elements() -> None:
    molecules = Molecules.from_lists([np.array([6, 79])], [np.zeros((2, 3))])
    with pytest.raises(ValueError, match="79"):
        make_policy().encode(molecules)


def test_unchanged_weights_give_the_same_log_prob_whatever_the_padding() -> None:
    policy = make_policy()
    z, mask = noisy_states(policy, (9, 5, 5, 3))
    noise, _ = noisy_states(policy, (9, 5, 5, 3))
    t, s = torch.full((4,), 400), torch.full((4,), 380)
    with torch.no_grad():
        step = policy.transition(z, t, s, mask)
        z_s = step.mu + step.sigma[:, None, None] * noise
        together = policy.log_prob(z_s, step.mu, step.sigma, mask)
        for i, n in enumerate((9, 5, 5, 3)):
            one = policy.transition(z[i : i + 1, :n], t[:1], s[:1], mask[i : i + 1, :n])
            alone = policy.log_prob(z_s[i : i + 1, :n], one.mu, one.sigma, mask[i : i + 1, :n])
            assert abs(float((alone - together[i]).exp() - 1)) < 1e-4


def test_conditioning_must_be_given_exactly_when_wanted() -> None:
    z, mask = noisy_states(make_policy(), (3,))
    t = torch.tensor([5])
    with pytest.raises(ValueError, match="nothing"):
        make_policy().eps(z, t, mask, torch.zeros(1, 1))
    conditional = make_policy(conditioning=("alpha",))
    with pytest.raises(ValueError, match="alpha"):
        conditional.eps(z, t, mask)
    with torch.no_grad():
        first, second = (conditional.eps(z, t, mask, torch.full((1, 1), v)) for v in (0.0, 2.0))
    assert not torch.allclose(first, second)


def careless(policy: DiffusionPolicy) -> DiffusionPolicy:
    """The same with noise predictions ten times as large, which throws clean states far out."""
    honest = policy.eps
    policy.eps = lambda *inputs: 10 * honest(*inputs)  # type: ignore[method-assign]
    return policy


@pytest.mark.parametrize("dataset", ["qm9", "geom"])
def test_predicted_clean_states_stay_where_molecules_can_be(dataset: str) -> None:
    policy = careless(make_policy(dataset).double())
    z, mask = noisy_states(policy, (9, 5, 2))
    t, s = torch.full((3,), 1000), torch.full((3,), 980)
    with torch.no_grad():
        step = policy.transition(z, t, s, mask)
        torch.testing.assert_close(policy.predict_clean(z, t, mask), step.z0_hat, rtol=0, atol=0)
    radius = step.z0_hat[..., :3].norm(dim=-1).amax(1)
    assert (radius <= mask.sum(1).double() + 1e-9).all()
    assert (radius > mask.sum(1).double() - 1e-9).any()
    atoms = Molecules.from_lists([np.array(policy.atom_types)], [np.zeros((len(policy.atom_types), 3))])
    assert (step.z0_hat[..., 3:].abs() <= 2 * policy.encode(atoms)[..., 3:].amax((0, 1)) + 1e-9).all()
    torch.testing.assert_close(step.z0_hat, project(step.z0_hat, mask), rtol=0, atol=1e-9)
    # the mean of q(z_s | z_t, z_0), which mu must be for the bounded state too
    alpha_t, alpha_s = policy.schedule.alpha(t)[0].double(), policy.schedule.alpha(s)[0].double()
    var_t, var_s = policy.schedule.sigma(t)[0].double() ** 2, policy.schedule.sigma(s)[0].double() ** 2
    ratio = alpha_t / alpha_s
    mean = (ratio * var_s * z + alpha_s * (var_t - ratio**2 * var_s) * step.z0_hat) / var_t
    torch.testing.assert_close(step.mu, mean, rtol=0, atol=1e-5)


def test_clean_states_of_molecules_are_not_touched_by_the_bound() -> None:
    policy = make_policy()
    ends = np.array([[-3.0, 0, 0], [0, 0, 0], [1.5, 1, 0], [1.5, -1, 0]])
    clean = policy.encode(Molecules.from_lists([np.array([9, 6, 1, 1])], [ends]))
    assert torch.equal(policy._bound(clean, torch.ones(1, 4, dtype=torch.bool)), clean)


def test_a_careless_policy_samples_finite_molecules_of_their_size() -> None:
    policy = careless(make_policy())
    molecules = sample_molecules(policy, [12, 7, 3], num_steps=20, seed=0)
    assert torch.isfinite(molecules.positions).all()
    assert (molecules.positions.norm(dim=-1).amax(1) <= molecules.num_atoms + 1e-3).all()
