"""Alarms: what an evaluation shows when a policy has collapsed or drifted, in words.

A policy that repeats itself, or that makes other elements than the data have, may have lower energies and
forces for that reason alone.

    for alarm in alarms(evaluation, baseline=before, data=ceiling): print(alarm)
"""

from __future__ import annotations

from elign.common.statistics import Interval
from elign.learner.evaluate import Evaluation

FREQUENT = 0.05
"""Share of the valid molecules that are one and the same."""
LESS_UNIQUE = 0.05
LESS_DIVERSE = 0.03
DRIFTED = 0.01
"""Divergence of the element mix from the data, in bits, beyond that of the baseline."""
_ENOUGH = 30


def alarms(
    trained: Evaluation, *, baseline: Evaluation | None = None, data: Evaluation | None = None
) -> list[str]:
    """One line an alarm, empty when all is well; held against the baseline, or else the data."""
    found = []
    frequent = trained.summary["most_frequent"]
    if frequent.low > FREQUENT and frequent.count >= _ENOUGH:
        found.append(
            f"repeats: {100 * frequent.estimate:.0f} % of the valid molecules are {trained.repeated}"
        )
    other, name = (baseline, "the baseline") if baseline is not None else (data, "the data")
    if other is None:
        return found
    for measure, limit, text in (
        ("uniqueness", LESS_UNIQUE, "less unique"),
        ("internal_diversity", LESS_DIVERSE, "less diverse"),
    ):
        mine, its = trained.summary[measure], other.summary[measure]
        if _apart(mine, its) and its.estimate - mine.estimate > limit:
            found.append(f"{text} than {name}: {mine.estimate:.3f} against {its.estimate:.3f}")
    if "elements" in trained.summary and "elements" in other.summary:
        mine, its = trained.summary["elements"], other.summary["elements"]
        if _apart(mine, its) and mine.estimate - its.estimate > DRIFTED:
            found.append(
                f"element mix drifted: {mine.estimate:.3f} bits from the data, {its.estimate:.3f} for {name}"
            )
    return found


def _apart(first: Interval, second: Interval) -> bool:
    """Whether the intervals do not overlap; False where one is not known."""
    return first.high < second.low or second.high < first.low
