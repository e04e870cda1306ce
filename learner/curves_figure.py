"""A picture of a run's most telling curves, for a README or a paper."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elign.common.errors import DataError
from elign.common.storage import write_atomic
from elign.learner.line_chart import smoothed
from elign.learner.report import metric_columns

_PANELS = (
    ("rms_force_mean", "mean RMS force, eV/Å", 1.0),
    ("rms_force_median", "median RMS force, eV/Å", 1.0),
    ("formation_energy_mean", "formation energy, eV/atom", 1.0),
    ("atom_stability", "stable atoms, %", 100.0),
    ("molecule_stability", "stable molecules, %", 100.0),
    ("uniqueness", "unique among valid, %", 100.0),
)
_LEAST_PERCENT = 20.0
"""Panels in percent span at least this much, so that noise does not look like a trend."""
_COLOURS = ("#2563eb", "#2563eb", "#2563eb", "#0f9f7a", "#0f9f7a", "#d9730d")


def plot_curves(run_dir: Path | str, out_png: Path | str) -> None:
    """Write up to six panels (raw thin, smoothed bold) as PNG; needs only the run's ``metrics.parquet``.

    Raises DataError when none of the columns is there.
    """
    iterations, columns = metric_columns(Path(run_dir))
    panels = [
        (*panel, colour) for panel, colour in zip(_PANELS, _COLOURS, strict=True) if panel[0] in columns
    ]
    if not panels:
        raise DataError(f"the metrics in {run_dir} have none of {', '.join(name for name, _, _ in _PANELS)}")
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(11, 2.9 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, label, factor, colour) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, min(3, len(panels)), place)
        values = columns[name] * factor
        axes.plot(iterations, values, color=colour, linewidth=0.8, alpha=0.35)
        axes.plot(iterations, smoothed(values), color=colour, linewidth=2.2)
        if factor == 100.0:
            low, high = axes.get_ylim()
            axes.set_ylim(max(min(low, high - _LEAST_PERCENT), 0.0), high)
        axes.set_title(label, fontsize=11, loc="left")
        axes.set_xlabel("iteration", fontsize=9, color="#5f6b7d")
        axes.tick_params(labelsize=9, colors="#5f6b7d", length=0)
        axes.grid(axis="y", color="#e3e7ee")
        axes.spines[:].set_visible(False)
    write_atomic(out_png, lambda temporary: figure.savefig(temporary, format="png"))
