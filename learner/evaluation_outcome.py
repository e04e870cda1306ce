"""All that an evaluation has found, for tables, reports and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elign.common.molecules import Molecules
from elign.learner.distributions import Reference
from elign.learner.evaluate import Comparison, Evaluation
from elign.learner.evaluation_table import comparison_json, evaluation_json, interval_json
from elign.learner.speed import Speed


@dataclass(frozen=True)
class Outcome:
    """sets: the molecules of ``trained``, and of ``baseline`` and ``data`` where there are such.

    data: the evaluation of real molecules, the ceiling. reference: the other real molecules, from which
    distances were taken.
    """

    dataset: str
    result: Evaluation | Comparison
    data: Evaluation | None
    sets: Mapping[str, Molecules]
    reference: Reference | None
    alarms: Mapping[str, str]
    speed: Speed | None

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """By the names of ``sets``, the baseline first."""
        if isinstance(self.result, Comparison):
            found = {"baseline": self.result.baseline, "trained": self.result.trained}
        else:
            found = {"trained": self.result}
        return found | ({} if self.data is None else {"data": self.data})


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The layout of ``evaluation_table``, with ``data`` (an evaluation), ``alarms`` and ``speed`` beside."""
    result = outcome.result
    document = comparison_json(result) if isinstance(result, Comparison) else evaluation_json(result)
    document["alarms"] = dict(outcome.alarms)
    if outcome.data is not None:
        document["data"] = evaluation_json(outcome.data)
    if outcome.speed is not None:
        speed = outcome.speed
        named = {"baseline_ms": speed.baseline_ms, "trained_ms": speed.trained_ms, "ratio": speed.ratio}
        document["speed"] = {name: interval_json(value) for name, value in named.items()}
        document["speed"]["clock"] = speed.clock
    return document
