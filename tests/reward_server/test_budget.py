"""The budget of a batch: fixed by the model on a CPU, searched elsewhere, survived when memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from elign.common.molecules import Molecules
from elign.common.scoring import Failure
from elign.reward_server.budget import CPU_MESSAGE_BYTES, find_budget
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.packing import count_edges
from elign.reward_server.registry import load_force_field
from elign.reward_server.scalar_mace import EDGES_PER_BATCH


def test_a_cpu_budget_is_a_function_of_the_model_alone(tiny_folder: Path) -> None:
    budgets = {MaceForceField.from_folder(tiny_folder, dtype=torch.float64).max_edges for _ in range(3)}
    assert budgets == {CPU_MESSAGE_BYTES // (8 * 9 * 8)}  # 8 channels, l up to 2: 9 components, float64
    shipped = load_force_field("elign-mace-small")
    assert isinstance(shipped, MaceForceField)
    assert shipped.max_edges == EDGES_PER_BATCH  # without messages


@pytest.mark.parametrize("knee", [1_000, 8_000, 64_000])
def test_the_search_stops_where_larger_batches_are_no_faster(knee: int) -> None:
    """Below the knee a batch costs the same whatever it holds; beyond, in proportion."""
    tried = []

    def seconds_of(edges: int) -> float:
        tried.append(edges)
        return max(edges, knee) / 1e6

    assert find_budget(seconds_of, smallest=1_000, largest=10_000_000, clock=lambda: 0.0) == knee
    assert max(tried) <= 4 * knee


def test_the_search_ends_with_its_time_and_its_range() -> None:
    now = iter(range(100))
    assert find_budget(lambda _: 1.0, smallest=1, limit_s=3.0, clock=lambda: float(next(now))) == 2
    assert find_budget(lambda _: 1.0, smallest=1, largest=8, clock=lambda: 0.0) == 8


def test_the_search_takes_what_fits_into_memory_and_hides_no_other_error() -> None:
    def small_device(edges: int) -> float:
        if edges > 5_000:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    def broken(_: int) -> float:
        raise RuntimeError("no kernel image")

    assert find_budget(small_device, smallest=1_000, clock=lambda: 0.0) == 4_000
    with pytest.raises(RuntimeError, match="kernel"):
        find_budget(broken)


class SmallDevice(nn.Module):
    """A network on a device whose memory holds so many edges."""

    def __init__(self, network: nn.Module, limit: int) -> None:
        super().__init__()
        self.network, self.limit = network, limit
        self.r_max, self.atomic_numbers = network.r_max, network.atomic_numbers
        self.interactions = network.interactions

    def forward(self, graph: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if graph["edge_index"].shape[1] > self.limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        answer: dict[str, torch.Tensor] = self.network(graph)
        return answer


def test_out_of_memory_loses_nothing_and_names_what_never_fits(
    tiny_field: MaceForceField, molecules: Molecules
) -> None:
    edges = count_edges(molecules, tiny_field.cutoff)
    many = molecules[[0, 1, 2] * 7]
    network = SmallDevice(tiny_field.network, limit=int(edges[0]))  # methanol, the largest, does not fit
    field = MaceForceField("small", network, tiny_field.reference_energies, max_edges=1_000_000)
    result, expected = field.evaluate(many), tiny_field.evaluate(many)
    assert result.failures == (None, None, Failure.TOO_LARGE) * 7
    fits = [i for i in range(len(many)) if i % 3 != 2]
    torch.testing.assert_close(result.energy[fits], expected.energy[fits], rtol=0, atol=1e-9)
    torch.testing.assert_close(result.forces[fits], expected.forces[fits], rtol=0, atol=1e-9)
    assert torch.isnan(result.energy[2])
    assert field.max_edges == 1_000_000  # a CPU's budget never changes


def test_a_molecule_larger_than_the_budget_is_evaluated_by_itself(
    tiny_folder: Path, molecules: Molecules
) -> None:
    tight = MaceForceField.from_folder(tiny_folder, dtype=torch.float64, max_edges=10)
    result = tight.evaluate(molecules)
    assert result.failures == (None, None, None)
