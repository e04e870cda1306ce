"""Bootstrap intervals of means and medians, and of their differences between two sets of molecules.

Everything is a weighted statistic over molecules: a weight of 0 masks a value out (which may then be NaN),
and weights make ratios, such as stable atoms over atoms. Deterministic by seed, vectorized, bounded in
memory.

    interval = bootstrap(rms_force, weights=judged)      # interval.estimate, interval.low, interval.high

What is no such average, as a distance between distributions, is a ``SetStatistic`` and resampled likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from elign.common.errors import DataError

Statistic = Literal["mean", "median"]
_RESAMPLES = 2000
_LEVEL = 0.95
_VALUES_PER_CHUNK = 1 << 21
_ROWS_PER_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile-bootstrap interval; NaN where no molecule entered.

    count: molecules that entered.
    """

    estimate: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Sample:
    """values: [B]. weights: [B], 0 where masked out; a value with weight 0 is never looked at."""

    values: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.shape != self.weights.shape:
            raise DataError(
                f"values {self.values.shape} and weights {self.weights.shape} do not fit; wanted [B] each"
            )
        object.__setattr__(self, "values", np.where(self.weights > 0, self.values, 0.0).astype(np.float64))
        object.__setattr__(self, "weights", self.weights.astype(np.float64))

    @property
    def count(self) -> int:
        """Molecules that are not masked out."""
        return int((self.weights > 0).sum())


@dataclass(frozen=True)
class SetStatistic:
    """A figure of a whole set of molecules.

    evaluate: from how often each molecule is in the set, [R, size], to the figure of each such set, [R], NaN
    where it has none. size: molecules. count: those that the figure looks at.
    """

    evaluate: Callable[[np.ndarray], np.ndarray]
    size: int
    count: int


def bootstrap_set(statistic: SetStatistic, *, seed: int = 0, resamples: int = _RESAMPLES) -> Interval:
    """The 95 % interval of a figure of a set, its molecules drawn anew with replacement."""
    rng = np.random.default_rng(seed)
    found = [statistic.evaluate(counts) for counts in _counts(rng, statistic.size, resamples)]
    return _interval(_of_all(statistic), found, statistic.count)


def bootstrap_set_difference(
    baseline: SetStatistic,
    changed: SetStatistic,
    *,
    paired: bool,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Interval:
    """The 95 % interval of changed - baseline; pairing and errors as in ``bootstrap_difference``."""
    if paired and baseline.size != changed.size:
        raise DataError(f"paired samples must be equally long, not {baseline.size} and {changed.size}")
    before = _counts(np.random.default_rng(seed), baseline.size, resamples)
    after = _counts(np.random.default_rng((seed, 1)), changed.size, resamples)
    found = [
        changed.evaluate(first if paired else second) - baseline.evaluate(first)
        for first, second in zip(before, after, strict=True)
    ]
    difference = _of_all(changed) - _of_all(baseline)
    return _interval(difference, found, min(baseline.count, changed.count))


def bootstrap(
    values: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    statistic: Statistic = "mean",
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Interval:
    """The 95 % interval of the weighted mean, or of the median of the values whose weight is not 0.

    values, weights: [B] (weights 1 by default).
    """
    sample = Sample(values, np.ones(len(values)) if weights is None else weights)
    estimate, evaluate = _whole(sample, statistic), _STATISTICS[statistic]
    rng = np.random.default_rng(seed)
    found = [evaluate(sample, index) for index in _indices(rng, len(values), resamples)]
    return _interval(estimate, found, sample.count)


def bootstrap_difference(
    baseline: Sample,
    changed: Sample,
    *,
    paired: bool,
    statistic: Statistic = "mean",
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Interval:
    """The 95 % interval of statistic(changed) - statistic(baseline).

    paired: molecule i of both belongs together, so both are resampled by the same indices, which takes out
    what they have in common; otherwise each is resampled on its own. count: molecules that entered on the
    smaller side. Raises DataError when paired samples differ in length.
    """
    size, other = len(baseline.values), len(changed.values)
    if paired and size != other:
        raise DataError(f"paired samples must be equally long, not {size} and {other}")
    evaluate = _STATISTICS[statistic]
    rng = np.random.default_rng(seed)
    before = _indices(rng, size, resamples, chunk_for=max(size, other))
    after = _indices(np.random.default_rng((seed, 1)), other, resamples, chunk_for=max(size, other))
    found = []
    for first, second in zip(before, after, strict=True):
        found.append(evaluate(changed, first if paired else second) - evaluate(baseline, first))
    estimate = _whole(changed, statistic) - _whole(baseline, statistic)
    return _interval(estimate, found, min(baseline.count, changed.count))


def _indices(
    rng: np.random.Generator, size: int, resamples: int, chunk_for: int | None = None
) -> Iterator[np.ndarray]:
    """[R, size] indices drawn with replacement, in chunks that add up to ``resamples``."""
    step = max(_VALUES_PER_CHUNK // max(chunk_for or size, 1), 1)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        yield rng.integers(0, max(size, 1), (rows, size))


def _counts(rng: np.random.Generator, size: int, resamples: int) -> Iterator[np.ndarray]:
    """[R, size] how often each molecule is drawn, in chunks that add up to ``resamples``."""
    for start in range(0, resamples, _ROWS_PER_CHUNK):
        rows = min(_ROWS_PER_CHUNK, resamples - start)
        yield rng.multinomial(size, np.full(size, 1 / max(size, 1)), size=rows)


def _of_all(statistic: SetStatistic) -> float:
    return float(statistic.evaluate(np.ones((1, statistic.size), dtype=np.int64))[0])


def _means(sample: Sample, index: np.ndarray) -> np.ndarray:
    """[R] weighted means of resamples; NaN for those in which every value is masked out."""
    total = sample.weights[index].sum(1)
    weighted = (sample.values * sample.weights)[index].sum(1)
    means: np.ndarray = np.divide(weighted, total, out=np.full(len(total), np.nan), where=total > 0)
    return means


def _medians(sample: Sample, index: np.ndarray) -> np.ndarray:
    """[R] medians of the values that are not masked out."""
    if not len(sample.values):
        return np.full(len(index), np.nan)
    kept = np.where(sample.weights > 0, sample.values, np.inf)
    ordered = np.sort(kept[index], axis=1)  # masked ones go last
    counts = (sample.weights > 0)[index].sum(1)
    rows = np.arange(len(index))
    low, high = np.maximum(counts - 1, 0) // 2, counts // 2
    high = np.minimum(high, ordered.shape[1] - 1)
    middle = (ordered[rows, low] + ordered[rows, high]) / 2
    medians: np.ndarray = np.where(counts > 0, middle, np.nan)
    return medians


_STATISTICS: dict[Statistic, Callable[[Sample, np.ndarray], np.ndarray]] = {
    "mean": _means,
    "median": _medians,
}


def _whole(sample: Sample, statistic: Statistic) -> float:
    if not sample.count:
        return float("nan")
    return float(_STATISTICS[statistic](sample, np.arange(len(sample.values))[None])[0])


def _interval(estimate: float, chunks: list[np.ndarray], count: int) -> Interval:
    found = np.concatenate(chunks)
    found = found[~np.isnan(found)]
    if np.isnan(estimate) or not len(found):
        return Interval(estimate, float("nan"), float("nan"), count)
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(estimate, float(low), float(high), count)
