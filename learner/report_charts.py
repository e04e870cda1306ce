"""Which columns of ``metrics.parquet`` belong together in a report, and how they are to be read.

Tolerant by design: a chart shows the columns that exist and hold a finite value, and a column nobody thought
of gets a chart of its own, so new figures appear in the report without a change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from elign.learner.line_chart import Chart, smoothed


@dataclass(frozen=True)
class Section:
    """A heading, a line below it, and its charts."""

    title: str
    note: str
    charts: tuple[Chart, ...]


SECTIONS = (
    Section(
        "What is learned",
        "Figures of the molecules sampled while training, one point an iteration.",
        (
            Chart(
                "RMS force",
                {"mean": "rms_force_mean", "median": "rms_force_median"},
                "eV/Å",
                "Lower is calmer: how far the atoms are from where the force field wants them.",
            ),
            Chart(
                "Stability",
                {"atoms": "atom_stability", "molecules": "molecule_stability"},
                "%",
                "Share with a right valence by EDM's bond lengths; a molecule needs all its atoms.",
            ),
            Chart(
                "Validity and variety",
                {"valid": "validity", "unique among valid": "uniqueness"},
                "%",
                "A fall in uniqueness means the policy repeats itself.",
            ),
            Chart(
                "Formation energy",
                {"mean": "formation_energy_mean"},
                "eV/atom",
                "Energy against the reference energies of the elements; lower is more strongly bound.",
            ),
        ),
    ),
    Section(
        "Is the reward being gamed?",
        "The same molecules by the force field and by GFN2-xTB, which gives no reward; and what drifts.",
        (
            Chart(
                "RMS force of some molecules",
                {"force field": "watch_field_rms_force", "GFN2-xTB": "watch_judge_rms_force"},
                "eV/Å",
                "A growing gap means that the policy learns the force field's mistakes.",
            ),
            Chart("In one piece", {"molecules": "one_piece"}, "%", "Fragments feel no forces."),
            Chart(
                "Elements",
                {symbol: f"share_{symbol}" for symbol in ("H", "C", "N", "O", "F")},
                "%",
                "Part of all atoms.",
            ),
        ),
    ),
    Section(
        "Rewards",
        "Before normalization within groups; higher is better.",
        (
            Chart(
                "Force reward", {"reward": "reward_force"}, "", "The RMS force with its sign turned, clipped."
            ),
            Chart(
                "Energy reward", {"reward": "reward_energy"}, "", "Return-to-go of the shaped energy channel."
            ),
            Chart(
                "Stability reward", {"reward": "reward_stability"}, "", "Share of stable, connected atoms."
            ),
            Chart("Objective", {"objective": "objective"}, "", "Weighted rewards; chooses the best policy."),
        ),
    ),
    Section(
        "Health of the update",
        "Trouble shows here first: ratios far from 1, a growing KL or squared log-ratio.",
        (
            Chart("KL to the reference", {"KL": "kl"}, "", "Distance from the starting policy.", True),
            Chart("Clipped transitions", {"clipped": "clip_fraction"}, "%", "Share outside the clip range."),
            Chart(
                "Largest deviation of a ratio from 1",
                {"deviation": "ratio_max_deviation"},
                "",
                "Over all transitions of the iteration.",
                True,
            ),
            Chart(
                "Squared log-ratio",
                {"mean": "log_ratio_squared", "worst step": "log_ratio_squared_max_step"},
                "",
                "Explodes first when late steps are trained too hard.",
                True,
            ),
            Chart("Gradient norm", {"norm": "grad_norm"}, "", "Before clipping.", True),
            Chart("Learning rate", {"rate": "learning_rate"}, "", "After warm-up and cosine."),
        ),
    ),
)


def sections(columns: Mapping[str, np.ndarray]) -> list[Section]:
    """The sections that have something to show; columns: name -> [n], without ``iteration``."""
    shown = {name for name, values in columns.items() if np.isfinite(values).any()}
    found = []
    for section in SECTIONS:
        charts = tuple(chart for wanted in section.charts if (chart := _keep(wanted, shown)) is not None)
        if charts:
            found.append(replace(section, charts=charts))
    known = {column for section in SECTIONS for chart in section.charts for column in chart.series.values()}
    rest = sorted(shown - known)
    times = [name for name in rest if name.startswith("time_") or name.endswith("_s")]
    failures = [name for name in rest if name.startswith("failures_")]
    together = _together("Seconds by phase", "s", times, columns)
    together += _together("Molecules that could not be judged", "molecules", failures, columns)
    if together:
        found.append(Section("Time and failures", "Where the time goes, and what had no answer.", together))
    other = tuple(_alone(name) for name in rest if name not in {*times, *failures})
    if other:
        found.append(Section("Other figures", "As they are called in metrics.parquet.", other))
    return found


def ends(values: np.ndarray) -> tuple[float, float]:
    """Smoothed value at the first and at the last finite place of a column; NaN where there is none."""
    smooth = smoothed(values)
    finite = smooth[np.isfinite(smooth)]
    return (float(finite[0]), float(finite[-1])) if len(finite) else (float("nan"), float("nan"))


def _keep(chart: Chart, shown: set[str]) -> Chart | None:
    series = {label: column for label, column in chart.series.items() if column in shown}
    return replace(chart, series=series) if series else None


def _together(
    title: str, unit: str, names: list[str], columns: Mapping[str, np.ndarray]
) -> tuple[Chart, ...]:
    """One chart for all of ``names`` that were ever above zero; none when there is no such column."""
    series = {_short(name): name for name in names if np.nanmax(columns[name]) > 0}
    return (Chart(title, series, unit),) if series else ()


def _short(name: str) -> str:
    return name.removeprefix("time_").removeprefix("failures_").removesuffix("_s").replace("_", " ")


def _alone(name: str) -> Chart:
    return Chart(name.replace("_", " "), {name: name})
