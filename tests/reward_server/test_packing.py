"""Packing: edges, budget, and back again."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from elign.common.molecules import Molecules
from elign.reward_server.packing import count_edges, pack, plan_batches, unpack


def heaps(seed: int = 0) -> Molecules:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 20)
    return Molecules.from_lists([np.full(n, 6) for n in sizes], [rng.uniform(0, 5, (n, 3)) for n in sizes])


def test_edges_are_all_pairs_within_the_cut_off_and_never_between_molecules() -> None:
    molecules = heaps()
    packed = pack(molecules, 3.0)
    expected = set()
    offset = 0
    for _, positions in molecules.arrays():
        for i, j in itertools.permutations(range(len(positions)), 2):
            if np.linalg.norm(positions[i] - positions[j]) < 3.0:
                expected.add((offset + i, offset + j))
        offset += len(positions)
    found = set(zip(*packed.edge_index.tolist(), strict=True))
    assert found == expected
    assert packed.edge_index.shape[1] == len(expected)
    assert torch.equal(packed.batch[packed.edge_index[0]], packed.batch[packed.edge_index[1]])


def test_counted_edges_are_those_packed() -> None:
    molecules = heaps()
    edges = count_edges(molecules, 3.0)
    packed = pack(molecules, 3.0)
    per_molecule = torch.bincount(packed.batch[packed.edge_index[0]], minlength=len(molecules))
    assert torch.equal(edges, per_molecule)


def test_batches_cover_everything_once_and_keep_the_budget() -> None:
    edges = count_edges(heaps(), 3.0)
    budget = 40
    batches = plan_batches(edges, budget)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(edges)))
    assert all(edges[batch].sum() <= budget or len(batch) == 1 for batch in batches)
    assert len(batches) <= 2 * int(edges.sum()) // budget + int((edges > budget).sum()) + 1


def test_unpack_undoes_pack() -> None:
    molecules = heaps()
    packed = pack(molecules, 3.0)
    assert torch.equal(unpack(packed.positions, molecules.node_mask), molecules.positions)


def test_real_atoms_need_not_come_first() -> None:
    mask = torch.tensor([[False, True, True], [True, False, True]])
    positions = torch.randn(2, 3, 3) * mask.unsqueeze(-1)
    packed = pack(Molecules(positions, mask.long() * 6, mask), 100.0)
    assert packed.ptr.tolist() == [0, 2, 4]
    assert sorted(zip(*packed.edge_index.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 3), (3, 2)]
