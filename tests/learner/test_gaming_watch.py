"""The watch on gaming: each trace raises its own alarm, honest improvement and missing figures raise none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult
from elign.learner.evaluate import compare, evaluate_molecules
from elign.learner.gaming_watch import (
    ALARM_PREFIX,
    FIELD_FORCE,
    JUDGE_FORCE,
    WINDOW,
    Alarm,
    Signs,
    alarm_figures,
    alarms,
    comparison_alarms,
    run_alarms,
    watch_figures,
)
from elign.learner.report import write_report
from tests.learner.rollouts import roll_out_groups, tiny_policy

START = Signs(3.0, 3.1, {"H": 0.5, "C": 0.4, "O": 0.1}, one_piece=0.95, uniqueness=1.0)
METHANE = np.array(
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
)


def test_honest_improvement_raises_nothing() -> None:
    assert alarms(START, START) == {}
    better = replace(START, field_force=1.5, judge_force=1.6, shares={"H": 0.53, "C": 0.37, "O": 0.1})
    assert alarms(START, better) == {}


@pytest.mark.parametrize(
    ("changes", "alarm", "said"),
    [
        ({"field_force": 1.0, "judge_force": 2.0}, Alarm.FORCE_FIELD_GAP, "50%"),
        ({"shares": {"H": 0.7, "C": 0.2, "O": 0.1}}, Alarm.ELEMENT_DRIFT, "H 50% to 70%"),
        ({"one_piece": 0.7}, Alarm.FRAGMENTS, "70%"),
        ({"uniqueness": 0.5}, Alarm.UNIQUENESS_COLLAPSE, "50%"),
    ],
)
def test_each_trace_raises_its_own_alarm(changes: dict, alarm: Alarm, said: str) -> None:
    found = alarms(START, replace(START, **changes))
    assert list(found) == [alarm]
    assert said in found[alarm]


def test_an_element_that_the_first_molecules_lack_counts() -> None:
    drifted = replace(START, shares={"H": 0.3, "C": 0.4, "O": 0.1, "F": 0.2})
    assert "20% of the atoms" in alarms(START, drifted)[Alarm.ELEMENT_DRIFT]


def test_what_was_not_measured_raises_nothing() -> None:
    unknown = Signs(math.nan, math.nan, {}, math.nan, math.nan)
    assert alarms(START, replace(unknown, shares=START.shares)) == {}
    assert alarms(unknown, unknown) == {}


def rows(count: int, **changes: float) -> list[dict[str, float]]:
    row = {
        JUDGE_FORCE: 3.0,
        FIELD_FORCE: 2.9,
        "share_H": 0.5,
        "share_C": 0.5,
        "one_piece": 1.0,
        "uniqueness": 1.0,
    }
    return [row | changes for _ in range(count)]


def test_a_run_is_judged_by_its_last_iterations_against_its_first() -> None:
    assert run_alarms(rows(WINDOW) + rows(WINDOW - 1, uniqueness=0.1)) == {}
    assert run_alarms(rows(WINDOW) + rows(WINDOW)) == {}
    found = run_alarms(rows(WINDOW) + rows(WINDOW, uniqueness=0.1))
    assert list(found) == [Alarm.UNIQUENESS_COLLAPSE]
    assert run_alarms(rows(WINDOW) + rows(WINDOW, uniqueness=0.1) + rows(WINDOW)) == {}
    figures = alarm_figures(found)
    assert sum(figures.values()) == figures[f"{ALARM_PREFIX}uniqueness_collapse"] == 1.0


def test_the_watch_judges_the_same_molecules_twice() -> None:
    scored = roll_out_groups(tiny_policy(), [9, 5, 14])
    seen: list[Molecules] = []

    def judge(molecules: Molecules) -> ForceFieldResult:
        seen.append(molecules)
        forces = torch.full_like(molecules.positions, 2.0) * molecules.node_mask[..., None]
        energy = torch.zeros(len(molecules), dtype=torch.float64)
        return ForceFieldResult(energy, forces, energy, (None,) * len(molecules))

    figures = watch_figures(scored, judge, number=4, seed=1)
    assert len(seen[0]) == 4
    assert figures[JUDGE_FORCE] == pytest.approx(2.0 * math.sqrt(3.0))
    everything = torch.cat([s.rewards.rms_force for s in scored])
    assert float(everything.min()) <= figures[FIELD_FORCE] <= float(everything.max())
    assert watch_figures(scored, judge, number=4, seed=1) == figures


def test_a_comparison_of_policies_warns_of_repeated_molecules_and_a_flattering_field() -> None:
    methanes = Molecules.from_lists([np.array([6, 1, 1, 1, 1])] * 4, [METHANE] * 4)

    def field(size: float):  # type: ignore[no-untyped-def]
        def score(molecules: Molecules) -> ForceFieldResult:
            forces = torch.full_like(molecules.positions, size) * molecules.node_mask[..., None]
            energy = torch.zeros(len(molecules), dtype=torch.float64)
            return ForceFieldResult(energy, forces, energy, (None,) * len(molecules))

        return score

    honest, flattering = {"a": field(1.0), "b": field(1.0)}, {"a": field(0.5), "b": field(1.0)}
    before, after = (evaluate_molecules(methanes, "qm9", scorers) for scorers in (honest, flattering))
    assert list(comparison_alarms(compare(before, after), field="a", judge="b")) == [Alarm.FORCE_FIELD_GAP]
    assert comparison_alarms(compare(before, before), field="a", judge="b") == {}


def test_the_report_names_what_was_raised(tmp_path: Path) -> None:
    raised = [0.0, 1.0, 0.0]
    columns = {"iteration": [1.0, 2.0, 3.0], "rms_force_mean": [3.0, 2.0, 1.0]}
    columns |= {f"{ALARM_PREFIX}fragments": raised, f"{ALARM_PREFIX}element_drift": [0.0, 0.0, 0.0]}
    pq.write_table(pa.table(columns), tmp_path / "metrics.parquet")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<b>fragments</b>: first at iteration 2, not any more" in page
    assert "<b>element drift</b>" not in page
