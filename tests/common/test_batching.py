"""Molecules are put together whole, with little padding and within the budget."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elign.common.batching import MAX_WASTE, pair_budget, size_buckets


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(500, 20_000))
def test_buckets_hold_every_row_once_with_little_waste(sizes: list[int], max_pairs: int) -> None:
    num_atoms = torch.tensor(sizes)
    buckets = size_buckets(num_atoms, max_pairs)
    assert sorted(torch.cat(buckets).tolist()) == list(range(len(sizes)))
    for bucket in buckets:
        pairs = num_atoms[bucket].square()
        padded = len(bucket) * int(pairs.max())
        assert len(bucket) == 1 or padded <= max_pairs + int(pairs.max())
    padded = sum(len(b) * int(num_atoms[b].max()) ** 2 for b in size_buckets(num_atoms, 10**9))
    assert 1 - float(num_atoms.square().sum()) / padded <= MAX_WASTE + 1e-9


def test_no_molecules_give_no_buckets() -> None:
    assert size_buckets(torch.zeros(0, dtype=torch.long), 100) == []


def test_a_wider_network_sees_fewer_pairs_at_once() -> None:
    cpu = torch.device("cpu")
    assert pair_budget(cpu, 64) == 4 * pair_budget(cpu, 256)
