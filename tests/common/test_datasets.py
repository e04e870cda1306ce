"""What the data sets promise: EDM's element order, histograms that add up to its training splits."""

import pytest

from elign.common.datasets import dataset_names, get_dataset
from elign.common.errors import ConfigError


def test_qm9_is_that_of_edm() -> None:
    qm9 = get_dataset("qm9")
    assert qm9.atomic_numbers == (1, 6, 7, 8, 9)
    assert qm9.includes_charges
    assert qm9.max_num_atoms == 29
    assert sum(qm9.size_histogram.values()) == 100_000
    atoms = 635559 + 101476 + 923537 + 140202 + 2323  # EDM's own count of atoms by type
    assert sum(size * count for size, count in qm9.size_histogram.items()) == atoms


def test_geom_is_that_of_edm() -> None:
    geom = get_dataset("geom")
    assert len(geom.atomic_numbers) == 16
    assert list(geom.atomic_numbers) == sorted(geom.atomic_numbers)
    assert not geom.includes_charges
    assert geom.max_num_atoms == 181
    assert sum(geom.size_histogram.values()) > 6_900_000


def test_unknown_data_set_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'qm10'.*qm9, geom"):
        get_dataset("qm10")
    assert dataset_names() == ("qm9", "geom")
