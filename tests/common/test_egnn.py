"""The dense network against the published formulation, and its symmetries."""

import pytest
import torch
from e3nn import o3
from torch import Tensor

from elign.common.egnn import EGNN
from tests.common.egnn_reference import reference_forward


@pytest.fixture(name="num_radial", params=[0, 5], ids=["published", "radial"])
def _num_radial(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def make_network(num_radial: int, hidden: int = 16) -> EGNN:
    torch.manual_seed(0)
    network = EGNN(7, 7, hidden=hidden, num_layers=3, num_radial=num_radial).double()
    for block in network.blocks:  # the published start is nearly a fixed point: make the coordinates move
        torch.nn.init.xavier_uniform_(block.coordinate_out.weight, gain=0.1)
    return network


@pytest.fixture(name="batch")
def _batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(6)[None] < torch.tensor([6, 4, 2, 1])[:, None]
    h = torch.randn(4, 6, 7, generator=generator, dtype=torch.float64) * mask[..., None]
    x = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64) * mask[..., None]
    return h, x, mask


def test_rotation_reflection_and_translation_act_on_the_output(
    batch: tuple[Tensor, Tensor, Tensor], num_radial: int
) -> None:
    h, x, mask = batch
    network = make_network(num_radial)
    torch.manual_seed(2)
    shift = torch.randn(3, dtype=torch.float64)
    features, moves = network(h, x, mask)
    for parity in (1.0, -1.0):
        rotation = parity * o3.rand_matrix(dtype=torch.float64)
        features2, moves2 = network(h, x @ rotation.T + shift, mask)
        torch.testing.assert_close(features2[mask], features[mask], rtol=0, atol=1e-8)
        torch.testing.assert_close(moves2[mask], (moves @ rotation.T)[mask], rtol=0, atol=1e-8)


def test_permutation_of_atoms_permutes_the_output(
    batch: tuple[Tensor, Tensor, Tensor], num_radial: int
) -> None:
    h, x, mask = batch
    network = make_network(num_radial)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    features, moves = network(h, x, mask)
    features2, moves2 = network(h[:, order], x[:, order], mask[:, order])
    keep = mask[:, order]
    torch.testing.assert_close(features2[keep], features[:, order][keep], rtol=0, atol=1e-8)
    torch.testing.assert_close(moves2[keep], moves[:, order][keep], rtol=0, atol=1e-8)


def test_padding_changes_nothing(batch: tuple[Tensor, Tensor, Tensor], num_radial: int) -> None:
    h, x, mask = batch
    network = make_network(num_radial)
    features, moves = network(h, x, mask)
    alone, moves_alone = network(h[1:2, :4], x[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(alone[0], features[1, :4], rtol=0, atol=1e-10)
    torch.testing.assert_close(moves_alone[0], moves[1, :4], rtol=0, atol=1e-10)


def test_equals_the_published_formulation_over_an_edge_list(
    batch: tuple[Tensor, Tensor, Tensor], num_radial: int
) -> None:
    h, x, mask = batch
    network = make_network(num_radial)
    features, moves = network(h, x, mask)
    expected_features, expected_moves = reference_forward(network, h, x, mask)
    torch.testing.assert_close(features[mask], expected_features[mask], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moves[mask], expected_moves[mask], rtol=1e-10, atol=1e-10)


def test_gradients_are_right(num_radial: int) -> None:
    network = make_network(num_radial, hidden=4)
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(1, 3, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda a, b: network(a, b, mask), (h, x))
