"""Alarms of an evaluation: what shows that a policy has collapsed onto few molecules or drifted off the data.

Such a policy may have lower energies and forces for that reason alone. ``gaming_watch`` names what a policy
does to its force field; these are about the variety of its molecules, and hold intervals against each other.

    collapse_alarms(trained, baseline)      # or the data; {"repeated_molecule": "12 % of the valid ..."}
"""

from __future__ import annotations

from elign.common.statistics import Interval
from elign.learner.evaluate import Comparison, Evaluation
from elign.learner.gaming_watch import comparison_alarms

FREQUENT = 0.05
"""Share of the valid molecules that are one and the same."""
LESS_DIVERSE = 0.03
DRIFTED = 0.01
"""Divergence of the element mix from the data, in bits, beyond that of the other set."""
_ENOUGH = 30


def evaluation_alarms(
    result: Evaluation | Comparison, data: Evaluation | None, *, field: str, judge: str
) -> dict[str, str]:
    """name -> text of every alarm; field, judge: the force fields that a gamed reward would set apart."""
    trained, other = (result.trained, result.baseline) if isinstance(result, Comparison) else (result, data)
    found = collapse_alarms(trained, other)
    if isinstance(result, Comparison) and field != judge:
        gamed = comparison_alarms(result, field=field, judge=judge)
        found |= {str(alarm): text for alarm, text in gamed.items()}
    return found


def collapse_alarms(trained: Evaluation, other: Evaluation | None) -> dict[str, str]:
    """other: the baseline, or else the data; without it only repeats are seen."""
    found = {}
    frequent = trained.summary["most_frequent"]
    if frequent.low > FREQUENT and frequent.count >= _ENOUGH:
        found["repeated_molecule"] = f"{frequent.estimate:.0%} of the valid molecules are {trained.repeated}"
    if other is None:
        return found
    mine, its = trained.summary["internal_diversity"], other.summary["internal_diversity"]
    if _apart(mine, its) and its.estimate - mine.estimate > LESS_DIVERSE:
        found["less_diverse"] = f"internal diversity {mine.estimate:.3f} against {its.estimate:.3f}"
    if "elements" in trained.summary and "elements" in other.summary:
        mine, its = trained.summary["elements"], other.summary["elements"]
        if _apart(mine, its) and mine.estimate - its.estimate > DRIFTED:
            found["elements_off_the_data"] = (
                f"the element mix is {mine.estimate:.3f} bits from the data, against {its.estimate:.3f}"
            )
    return found


def _apart(first: Interval, second: Interval) -> bool:
    """Whether the intervals do not overlap; False where one is not known."""
    return first.high < second.low or second.high < first.low
