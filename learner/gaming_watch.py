"""Is the reward being gamed? What a policy does when it learns the force field's mistakes, by name.

A policy that earns reward without better molecules leaves traces: its force field sees smaller forces than
another method does, its elements drift, its molecules fall apart or repeat themselves. ``Signs`` holds these
traces for a set of molecules, ``alarms`` compares two sets: the start of a run with its present, or a
baseline with the aligned policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from ase.data import chemical_symbols

from elign.common.molecules import Molecules
from elign.common.rollout import ScoredTrajectory
from elign.common.scoring import ForceFieldResult
from elign.learner.evaluate import Comparison, Evaluation

WINDOW = 8
"""Iterations that are averaged at a run's start, and at its present."""

FLATTERY_GROWTH = 0.15
ELEMENT_DRIFT = 0.08
PIECES_LOST = 0.10
UNIQUENESS_KEPT = 0.90

ALARM_PREFIX, SHARE_PREFIX = "alarm_", "share_"
JUDGE_FORCE, FIELD_FORCE = "watch_judge_rms_force", "watch_field_rms_force"


class Alarm(StrEnum):
    """What may have gone wrong."""

    FORCE_FIELD_GAP = "force_field_gap"
    ELEMENT_DRIFT = "element_drift"
    FRAGMENTS = "fragments"
    UNIQUENESS_COLLAPSE = "uniqueness_collapse"


@dataclass(frozen=True)
class Signs:
    """Traces of gaming in a set of molecules; NaN (or nothing) where a thing was not measured.

    field_force, judge_force: mean RMS force (eV/Å) of the same molecules by the force field that gives the
    reward, and by one that the policy never saw. shares: element -> part of all atoms. one_piece: part of the
    molecules. uniqueness: of the valid molecules.
    """

    field_force: float
    judge_force: float
    shares: Mapping[str, float]
    one_piece: float
    uniqueness: float

    @property
    def flattery(self) -> float:
        """By which part the force field sees smaller forces than the judge."""
        return 1.0 - self.field_force / self.judge_force if self.judge_force > 0 else math.nan


def alarms(before: Signs, after: Signs) -> dict[Alarm, str]:
    """What is wrong with ``after`` against ``before``, and by how much; a NaN raises nothing."""
    elements = sorted(before.shares.keys() | after.shares.keys())
    shares = [(e, before.shares.get(e, 0.0), after.shares.get(e, 0.0)) for e in elements]
    drift = 0.5 * sum(abs(new - old) for _, old, new in shares)
    found = {
        Alarm.FORCE_FIELD_GAP: (
            after.flattery - before.flattery > FLATTERY_GROWTH,
            f"the force field sees {after.flattery:.0%} smaller forces than the judge, "
            f"at first {before.flattery:.0%}",
        ),
        Alarm.ELEMENT_DRIFT: (
            bool(before.shares and after.shares) and drift > ELEMENT_DRIFT,
            f"{drift:.0%} of the atoms are of other elements than at first: "
            + ", ".join(f"{e} {old:.0%} to {new:.0%}" for e, old, new in shares),
        ),
        Alarm.FRAGMENTS: (
            before.one_piece - after.one_piece > PIECES_LOST,
            f"{after.one_piece:.0%} of the molecules are in one piece, at first {before.one_piece:.0%}",
        ),
        Alarm.UNIQUENESS_COLLAPSE: (
            after.uniqueness < UNIQUENESS_KEPT * before.uniqueness,
            f"{after.uniqueness:.0%} of the valid molecules are unique, at first {before.uniqueness:.0%}",
        ),
    }
    return {alarm: text for alarm, (raised, text) in found.items() if raised}


def watch_figures(
    scored: Sequence[ScoredTrajectory],
    judge: Callable[[Molecules], ForceFieldResult],
    *,
    number: int,
    seed: int | tuple[int, ...],
) -> dict[str, float]:
    """Mean RMS force of ``number`` random molecules of an iteration by both judges, eV/Å.

    Only molecules that both could judge count; NaN when there is none.
    """
    molecules = Molecules.cat([s.trajectory.molecules for s in scored])
    field = np.concatenate([s.rewards.rms_force.numpy() for s in scored])
    chosen = np.random.default_rng(seed).permutation(len(molecules))[:number]
    some = molecules[chosen.tolist()]
    judged = judge(some).rms_force(some.node_mask).numpy()
    field_mean, judge_mean = _means_of_both(field[chosen], judged)
    return {JUDGE_FORCE: judge_mean, FIELD_FORCE: field_mean}


def run_alarms(rows: Sequence[Mapping[str, float]]) -> dict[Alarm, str]:
    """Alarms of a run: its last ``WINDOW`` iterations against its first; none before twice as many."""
    if len(rows) < 2 * WINDOW:
        return {}
    return alarms(_signs(rows[:WINDOW]), _signs(rows[-WINDOW:]))


def comparison_alarms(comparison: Comparison, *, field: str, judge: str) -> dict[Alarm, str]:
    """Alarms of a comparison of two policies; field and judge: names of force fields that judged both."""
    return alarms(*(_evaluated(e, field, judge) for e in (comparison.baseline, comparison.trained)))


def alarm_figures(found: Mapping[Alarm, str]) -> dict[str, float]:
    """One figure for each kind, 1 while it is raised."""
    return {f"{ALARM_PREFIX}{alarm.value}": float(alarm in found) for alarm in Alarm}


def _evaluated(evaluation: Evaluation, field: str, judge: str) -> Signs:
    field_mean, judge_mean = _means_of_both(*(evaluation.verdicts[name].rms_force for name in (field, judge)))
    total = sum(evaluation.elements.values())
    return Signs(
        field_force=field_mean,
        judge_force=judge_mean,
        shares={chemical_symbols[z]: count / total for z, count in evaluation.elements.items()},
        one_piece=evaluation.summary["one_piece"].estimate,
        uniqueness=evaluation.summary["uniqueness"].estimate,
    )


def _means_of_both(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Means over the molecules for which both ([B]) are known; NaN when there is none."""
    both = np.isfinite(first) & np.isfinite(second)
    return (float(first[both].mean()), float(second[both].mean())) if both.any() else (math.nan, math.nan)


def _signs(rows: Sequence[Mapping[str, float]]) -> Signs:
    def mean(name: str) -> float:
        values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        return sum(values) / len(values) if values else math.nan

    names = [name for name in rows[0] if name.startswith(SHARE_PREFIX)]
    return Signs(
        field_force=mean(FIELD_FORCE),
        judge_force=mean(JUDGE_FORCE),
        shares={name.removeprefix(SHARE_PREFIX): mean(name) for name in names},
        one_piece=mean("one_piece"),
        uniqueness=mean("uniqueness"),
    )
