"""Equal molecules are found to the last bit, and answers go back to every row."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from elign.common.molecules import Molecules
from elign.reward_server.duplicates import unique_molecules


@given(st.lists(st.integers(0, 5), max_size=30))
def test_each_row_is_found_among_the_different_ones_in_order_of_appearance(choice: list[int]) -> None:
    rng = np.random.default_rng(0)
    kinds = [(np.full(n, 6), rng.standard_normal((n, 3))) for n in (1, 2, 2, 3, 5, 5)]
    kinds[5] = (np.full(5, 7), kinds[4][1])  # the same places, other elements
    batch = Molecules.from_lists([kinds[i][0] for i in choice], [kinds[i][1] for i in choice])
    different, index = unique_molecules(batch)
    assert len(different) == len(set(choice))
    assert torch.equal(different.positions[index], batch.positions)
    assert torch.equal(different.atomic_numbers[index], batch.atomic_numbers)
    assert torch.equal(different.node_mask[index], batch.node_mask)
    first_rows = [choice.index(kind) for kind in dict.fromkeys(choice)]
    assert torch.equal(different.positions, batch.positions[first_rows])


def test_not_a_number_and_the_last_bit_count() -> None:
    nowhere = np.array([[np.nan, 0.0, 0.0]])
    nearly = np.nextafter(np.float32(1.0), np.float32(2.0))
    places = [nowhere, nowhere, np.full((1, 3), 1.0), np.full((1, 3), nearly)]
    different, index = unique_molecules(Molecules.from_lists([np.array([6])] * 4, places))
    assert len(different) == 3
    assert index.tolist() == [0, 0, 1, 2]
