"""Intervals cover the truth as often as they say, and masks, weights and pairs do what the formulas say."""

import numpy as np
import pytest

from elign.common import statistics
from elign.common.errors import DataError
from elign.common.statistics import Sample, bootstrap, bootstrap_difference


def _sample(values: np.ndarray) -> Sample:
    return Sample(values, np.ones(len(values)))


def test_a_mean_has_the_width_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert interval.count == 400


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        interval = bootstrap(rng.normal(0.0, 1.0, 80), seed=seed, resamples=400)
        inside += interval.low <= 0.0 <= interval.high
    assert 180 <= inside <= 198


def test_masked_values_count_for_nothing_even_when_nan() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    for statistic in ("mean", "median"):
        interval = bootstrap(values, weights=np.array([1.0, 0.0, 1.0, 0.0]), statistic=statistic)
        assert interval.estimate == 2.0
        assert (interval.low, interval.high) == (1.0, 3.0)
        assert interval.count == 2


def test_weights_make_a_ratio_of_sums() -> None:
    stable, atoms = np.array([3.0, 0.0, 10.0]), np.array([3, 7, 20])
    assert bootstrap(stable / atoms, weights=atoms).estimate == pytest.approx(13 / 30)


def test_medians_of_even_and_odd_counts() -> None:
    assert bootstrap(np.array([5.0, 1.0, 2.0]), statistic="median").estimate == 2.0
    assert bootstrap(np.array([5.0, 1.0, 2.0, 4.0]), statistic="median").estimate == 3.0
    values = np.random.default_rng(2).normal(size=101)
    assert bootstrap(values, statistic="median").estimate == np.median(values)


def test_nothing_judged_is_nan_not_a_number() -> None:
    for weights in (np.zeros(3), np.zeros(0)):
        for statistic in ("mean", "median"):
            interval = bootstrap(np.full(len(weights), np.nan), weights=weights, statistic=statistic)
            assert np.isnan([interval.estimate, interval.low, interval.high]).all()
            assert interval.count == 0
            assert not interval.excludes_zero


def test_pairing_takes_out_what_both_sides_share() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(0.0, 5.0, 300)
    a, b = _sample(shared), _sample(shared + 0.2 + rng.normal(0.0, 0.5, 300))
    paired, unpaired = (bootstrap_difference(a, b, paired=p) for p in (True, False))
    assert paired.estimate == unpaired.estimate == pytest.approx((b.values - a.values).mean())
    assert paired.excludes_zero
    assert not unpaired.excludes_zero
    standard = 1.96 * (b.values - a.values).std() / np.sqrt(300)
    assert paired.high - paired.low == pytest.approx(2 * standard, rel=0.1)


def test_each_side_of_a_difference_has_its_own_mask() -> None:
    a = Sample(np.array([1.0, np.nan, 3.0]), np.array([1, 0, 1]))
    b = Sample(np.array([0.0, 4.0, np.nan]), np.array([1, 1, 0]))
    interval = bootstrap_difference(a, b, paired=True)
    assert interval.estimate == 0.0
    assert interval.count == 2


def test_unpaired_sides_may_differ_in_length_and_paired_ones_may_not() -> None:
    a, b = _sample(np.arange(10.0)), _sample(np.arange(20.0))
    assert bootstrap_difference(a, b, paired=False).estimate == pytest.approx(5.0)
    with pytest.raises(DataError, match="equally long, not 10 and 20"):
        bootstrap_difference(a, b, paired=True)
    with pytest.raises(DataError, match=r"values \(3,\) and weights \(2,\)"):
        Sample(np.zeros(3), np.zeros(2))


def test_one_seed_one_result_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=50)
    whole = (
        bootstrap(values, seed=7),
        bootstrap_difference(_sample(values), _sample(-values), paired=False, seed=7),
    )
    monkeypatch.setattr(statistics, "_VALUES_PER_CHUNK", 170)
    assert bootstrap(values, seed=7) == whole[0]
    assert bootstrap_difference(_sample(values), _sample(-values), paired=False, seed=7) == whole[1]
    assert bootstrap(values, seed=8) != whole[0]
