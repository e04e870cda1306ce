"""Distances, pieces and their edge cases, against hand-made molecules and a plain graph search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import covalent_radii
from scipy.sparse.csgraph import connected_components

from elign.common.geometry import (
    CONNECTION_FACTOR,
    largest_piece,
    minimum_distance,
    num_pieces,
    pairwise_distances,
    piece_labels,
)
from elign.common.molecules import Molecules


def carbon_chain(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Chains of carbon 1.5 Å apart, one chain every 10 Å."""
    places = [[1.5 * i, 10.0 * row, 0.0] for row, n in enumerate(lengths) for i in range(n)]
    return np.full(sum(lengths), 6), np.array(places)


def batch(*molecules: tuple[np.ndarray, np.ndarray]) -> Molecules:
    return Molecules.from_lists([z for z, _ in molecules], [x for _, x in molecules])


def random_heap(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.choice([1, 6, 8], size=size), rng.uniform(0, 6, (size, 3))


def test_minimum_distance_ignores_padding_and_the_diagonal() -> None:
    molecules = batch(carbon_chain([5]), carbon_chain([2]))
    assert minimum_distance(molecules).tolist() == pytest.approx([1.5, 1.5])


def test_minimum_distance_of_one_atom_is_infinite_and_of_nan_is_nan() -> None:
    broken = (np.array([6, 6]), np.array([[0.0, 0, 0], [np.nan, 0, 0]]))
    distance = minimum_distance(batch(carbon_chain([1]), broken))
    assert torch.isinf(distance[0])
    assert torch.isnan(distance[1])


def test_distances_are_symmetric_and_infinite_where_padded() -> None:
    distances = pairwise_distances(batch(carbon_chain([3]), carbon_chain([1])))
    assert torch.equal(distances, distances.transpose(1, 2))
    assert torch.isinf(distances[1]).all()


def test_pieces_agree_with_a_graph_search() -> None:
    rng = np.random.default_rng(0)
    heaps = [random_heap(rng, size) for size in rng.integers(1, 30, 60)]
    counts = num_pieces(batch(*heaps)).tolist()
    for (numbers, positions), count in zip(heaps, counts, strict=True):
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        reach = CONNECTION_FACTOR * (covalent_radii[numbers][:, None] + covalent_radii[numbers][None])
        assert count == connected_components(distances < reach)[0]


def test_a_long_chain_is_one_piece_in_any_order_of_atoms() -> None:
    numbers, positions = carbon_chain([40])
    shuffled = np.random.default_rng(1).permutation(40)
    assert num_pieces(batch((numbers, positions), (numbers, positions[shuffled]))).tolist() == [1, 1]


def test_largest_piece_is_found_and_padding_never_belongs_to_it() -> None:
    molecules = batch(carbon_chain([2, 4, 1]), carbon_chain([1]))
    chosen = largest_piece(molecules)
    assert chosen[0].tolist() == [False] * 2 + [True] * 4 + [False]
    assert chosen[1].tolist() == [True] + [False] * 6


def test_labels_name_the_lowest_atom_of_each_piece() -> None:
    labels = piece_labels(batch(carbon_chain([2, 3]), carbon_chain([1])))
    assert labels.tolist() == [[0, 0, 2, 2, 2], [0, -1, -1, -1, -1]]


def test_pieces_do_not_depend_on_rotation_or_translation() -> None:
    rng = np.random.default_rng(2)
    numbers, positions = random_heap(rng, 20)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    moved = positions @ rotation + 5.0
    labels = piece_labels(batch((numbers, positions), (numbers, moved)))
    assert torch.equal(labels[0], labels[1])


def test_an_empty_batch_is_allowed() -> None:
    empty = Molecules.from_lists([], [])
    assert minimum_distance(empty).shape == (0,)
    assert num_pieces(empty).shape == (0,)
    assert largest_piece(empty).shape == (0, 0)
