"""Molecules are put together whole, with little padding and within the budget."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elign.common.batching import pair_budget, size_buckets
from elign.common.checkpoint import load_policy

MAX_PAIRS = 8192


def padded_pairs(num_atoms: torch.Tensor, buckets: list[torch.Tensor]) -> int:
    return sum(len(bucket) * int(num_atoms[bucket].max()) ** 2 for bucket in buckets)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(500, 20_000))
def test_buckets_hold_every_molecule_once_within_the_budget(sizes: list[int], max_pairs: int) -> None:
    num_atoms = torch.tensor(sizes)
    buckets = size_buckets(num_atoms, max_pairs)
    assert sorted(torch.cat(buckets).tolist()) == list(range(len(sizes)))
    for bucket in buckets:
        largest = int(num_atoms[bucket].max()) ** 2
        assert len(bucket) == 1 or len(bucket) * largest <= max_pairs + largest


def test_molecules_of_qm9_are_padded_by_less_than_five_per_cent() -> None:
    histogram = load_policy("elign-qm9-small").spec.size_histogram
    weights = np.array(list(histogram.values()), dtype=float)
    drawn = np.random.default_rng(0).choice(list(histogram), size=256, p=weights / weights.sum())
    num_atoms = torch.from_numpy(drawn)
    padded = padded_pairs(num_atoms, size_buckets(num_atoms, MAX_PAIRS))
    assert 1 - float(num_atoms.square().sum()) / padded < 0.05


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=7))
def test_no_other_classes_cost_less(sizes: list[int]) -> None:
    num_atoms = torch.tensor(sizes).sort(descending=True).values
    count = len(sizes)

    def cost(buckets: list[torch.Tensor]) -> float:
        return padded_pairs(num_atoms, buckets) + len(buckets) * MAX_PAIRS / 16

    found = cost(size_buckets(num_atoms, MAX_PAIRS))
    for number in range(count):
        for cuts in combinations(range(1, count), number):
            assert found <= cost(list(torch.arange(count).tensor_split(list(cuts)))) + 1e-6


def test_a_few_molecules_share_one_call() -> None:
    assert len(size_buckets(torch.tensor([19, 18, 17, 16]), MAX_PAIRS)) == 1


def test_no_molecules_give_no_buckets() -> None:
    assert size_buckets(torch.zeros(0, dtype=torch.long), 100) == []


def test_a_wider_network_sees_fewer_pairs_at_once() -> None:
    cpu = torch.device("cpu")
    assert pair_budget(cpu, 64) == 4 * pair_budget(cpu, 256)
