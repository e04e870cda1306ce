"""However molecules are packed, energies and forces are those of the same model's ASE calculator."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elign.common.molecules import Molecules
from elign.reward_server import scalar_mace
from elign.reward_server.checks import Checks
from elign.reward_server.cuda_mace import convert
from elign.reward_server.edge_kernels import EdgeSum, RadialTable
from elign.reward_server.fused_convolution import fuse_convolutions
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import (
    MaceSpec,
    build_network,
    graph_input,
    importing_mace,
    load_network,
    save_network,
)
from elign.reward_server.packing import pack
from elign.reward_server.probes import says_the_same
from elign.reward_server.registry import load_force_field
from elign.reward_server.scalar_mace import EDGES_PER_BATCH, speed_up

TOLERANCE = {torch.float32: (1e-5, 1e-4), torch.float64: (1e-9, 1e-9)}
"""(eV, eV/Å)"""
SIZES = (2, 3, 5, 9, 14, 22, 29)
# mace adds the references up in the network's own precision, where a thousand eV has no such digits
SPEC = MaceSpec(reference_energies=(0.0,) * 5, channels=8, radial_width=8)


def clusters() -> Molecules:
    """Trees of atoms, each 1.0 to 1.6 Å from its parent and more than 0.9 Å from all others; float64."""
    rng = np.random.default_rng(0)
    numbers, positions = [], []
    for size in SIZES:
        places = [np.zeros(3)]
        while len(places) < size:
            step = rng.standard_normal(3)
            new = places[rng.integers(len(places))] + rng.uniform(1.0, 1.6) * step / np.linalg.norm(step)
            if min(np.linalg.norm(new - place) for place in places) > 0.9:
                places.append(new)
        numbers.append(rng.choice([1, 6, 7, 8, 9], size))
        positions.append(np.array(places))
    made = Molecules.from_lists(numbers, positions)
    return Molecules(made.positions.double(), made.atomic_numbers, made.node_mask)


Reference = tuple[torch.dtype, MaceForceField, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module", params=TOLERANCE, ids=str)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """dtype, the force field, and energies and forces by mace's own calculator and convolution."""
    with importing_mace():
        from mace.calculators import MACECalculator

    dtype: torch.dtype = request.param
    folder = tmp_path_factory.mktemp("exact")
    torch.manual_seed(0)
    save_network(build_network(SPEC, torch.float64), SPEC, {}, folder)
    name = str(dtype).removeprefix("torch.")
    calculator = MACECalculator(models=[load_network(folder, dtype)[0]], device="cpu", default_dtype=name)
    molecules = clusters()
    energy = torch.zeros(len(molecules), dtype=torch.float64)
    forces = torch.zeros_like(molecules.positions)
    for i, (numbers, positions) in enumerate(molecules.arrays()):
        atoms = Atoms(numbers, positions, calculator=calculator)
        energy[i] = atoms.get_potential_energy()
        forces[i, : len(numbers)] = torch.from_numpy(atoms.get_forces())
    # not all of the clusters count as one molecule
    checks = Checks(one_piece=False)
    return dtype, MaceForceField.from_folder(folder, dtype=dtype, checks=checks), energy, forces


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chosen=st.lists(st.integers(0, len(SIZES) - 1), min_size=1, max_size=12),
    max_edges=st.sampled_from([1, 30, 200, 1_000, 100_000]),
)
def test_every_packing_gives_what_the_ase_calculator_gives(
    reference: Reference, chosen: list[int], max_edges: int
) -> None:
    dtype, field, energy, forces = reference
    field.max_edges = max_edges
    result = field.evaluate(clusters()[chosen])
    for_energy, for_force = TOLERANCE[dtype]
    torch.testing.assert_close(result.energy, energy[chosen], rtol=0, atol=for_energy)
    torch.testing.assert_close(result.forces.double(), forces[chosen], rtol=0, atol=for_force)


def test_the_fused_convolution_is_used_and_equals_maces_own() -> None:
    torch.manual_seed(0)
    network = build_network(SPEC, torch.float64)
    block = network.interactions[1]
    packed = pack(clusters(), 5.0)
    atoms, edges = len(packed.positions), packed.edge_index.shape[1]
    nodes, harmonics = torch.randn(atoms, 8, dtype=torch.float64), torch.randn(edges, 9, dtype=torch.float64)
    weights = torch.randn(edges, 24, dtype=torch.float64)
    sender, receiver = packed.edge_index
    messages = block.conv_tp(nodes[sender], harmonics, weights)
    expected = torch.zeros(atoms, 72, dtype=torch.float64).index_add(0, receiver, messages)
    assert fuse_convolutions(network) == 2
    found = block.conv_tp(nodes, harmonics, weights, packed.edge_index)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert fuse_convolutions(network) == 0  # once is enough


def test_the_shipped_force_field_is_made_fast() -> None:
    field = load_force_field("elign-mace-small", device="cpu")
    assert isinstance(field, MaceForceField)
    assert field.max_edges == EDGES_PER_BATCH


@pytest.mark.parametrize(
    "changed", [{}, {"correlation": 3}, {"correlation": 1}, {"max_ell": 3}, {"num_layers": 3}]
)
def test_fast_networks_say_the_same(changed: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = build_network(SPEC.model_copy(update=changed), torch.float32)
    fuse_convolutions(network)
    fast = speed_up(network)
    assert fast is not network
    packed = pack(clusters(), 5.0)
    single = replace(packed, positions=packed.positions.float())
    found, expected = (model(graph_input(single, model)) for model in (fast, network))
    for key in ("interaction_energy", "forces"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)


def test_a_network_that_the_probes_find_changed_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(SPEC, torch.float32)
    fuse_convolutions(network)
    monkeypatch.setattr(scalar_mace, "GRID", 3)  # far too coarse
    assert speed_up(network) is network


def test_mace_by_cuequivariance_says_the_same() -> None:
    pytest.importorskip("cuequivariance_torch", reason="cuEquivariance is not installed")
    torch.manual_seed(0)
    network = build_network(SPEC, torch.float64)
    assert says_the_same(convert(network, torch.device("cpu")), network)
    assert torch.get_default_dtype() == torch.float32


def test_probes_see_a_small_change() -> None:
    torch.manual_seed(0)
    network = build_network(SPEC, torch.float32)
    changed = copy.deepcopy(network)
    assert says_the_same(changed, network)
    with torch.no_grad():
        changed.products[1].linear.weight.mul_(1.01)
    assert not says_the_same(changed, network)


def test_double_precision_is_left_as_it_is() -> None:
    network = build_network(SPEC, torch.float64)
    fuse_convolutions(network)
    assert speed_up(network) is network


def test_gradients_of_the_edge_loop_are_those_of_its_formula() -> None:
    rng = torch.Generator().manual_seed(0)
    atoms, channels, cutoff, grid = 6, 16, 4.0, 2000
    knots = torch.linspace(0, cutoff, grid + 1, dtype=torch.float64)[:, None]
    speed = torch.linspace(0.3, 2.0, 3 * channels, dtype=torch.float64)
    rows = torch.stack(
        [(knots * speed).sin(), speed * (knots * speed).cos(), -(speed**2) * (knots * speed).sin()], 1
    )
    scales = np.array([1.0, 0.7, 0.4], dtype=np.float32)
    table = RadialTable(rows.float().contiguous().numpy(), cutoff / grid, scales)
    receiver, sender = (~torch.eye(atoms, dtype=torch.bool)).nonzero(as_tuple=True)
    nodes, harmonics = torch.randn(atoms, channels, generator=rng), torch.randn(len(sender), 9, generator=rng)
    lengths = cutoff * torch.rand(len(sender), 1, generator=rng)
    inputs = [x.requires_grad_() for x in (nodes, harmonics, lengths)]
    radial = (lengths.double() * speed).sin().view(-1, 3, channels) * torch.from_numpy(scales)[:, None]
    degree = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2])
    messages = harmonics[:, :, None] * radial[:, degree] * nodes[sender][:, None]
    expected = torch.zeros(9, atoms, channels, dtype=torch.float64).index_add(
        1, receiver, messages.transpose(0, 1)
    )
    found = EdgeSum.apply(nodes, harmonics, lengths, torch.stack([sender, receiver]), table)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(expected.shape, generator=rng)
    mine, formula = (torch.autograd.grad((out * direction).sum(), inputs) for out in (found, expected))
    for a, b in zip(mine, formula, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # e3nn's, about TorchScript
def test_a_network_that_cannot_be_fused_is_left_as_it_is() -> None:
    with importing_mace():
        from e3nn import o3

    network = build_network(SPEC, torch.float32)
    vectors = o3.FullTensorProduct("4x1o", "1x0e + 1x1o")
    network.interactions[0].conv_tp = vectors
    assert fuse_convolutions(network) == 1
    assert network.interactions[0].conv_tp is vectors
