"""Reports of evaluations: LaTeX that holds, charts, the choice of molecules, ceilings, timing in turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common.errors import DataError
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.learner.data_ceiling import split_ceiling
from elign.learner.distribution_chart import draw_values
from elign.learner.evaluate import compare, evaluate_molecules
from elign.learner.evaluation_latex import escape, latex_table
from elign.learner.evaluation_molecules import typical_and_worst
from elign.learner.evaluation_outcome import Outcome, outcome_json
from elign.learner.evaluation_report import write_evaluation_report
from elign.learner.speed import compare_speed, speed_of


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def _scorer(molecules: Molecules) -> ForceFieldResult:
    """RMS forces 0, 1, 2, ... eV/Å; the last molecule fails."""
    rms = torch.arange(len(molecules), dtype=torch.float64)
    failures = tuple([None] * (len(molecules) - 1) + [Failure.NOT_CONVERGED])
    forces = torch.zeros_like(molecules.positions, dtype=torch.float64)
    forces[..., 0] = torch.where(molecules.node_mask, rms[:, None], 0.0)
    return ForceFieldResult(-rms, forces, -rms, failures)


def _outcome(**overrides: object) -> Outcome:
    molecules = _named(*["H2O", "CH4", "NH3", "C2H6"] * 3)
    one = evaluate_molecules(molecules, "qm9", {"my_ff": _scorer})
    settings: dict[str, object] = {
        "dataset": "qm9",
        "result": compare(one, one),
        "data": None,
        "sets": {"trained": molecules, "baseline": molecules},
        "reference": None,
        "alarms": {"repeats": "<b>"},
        "speed": speed_of(np.array([[1.0, 2.0], [2.0, 4.0]]), clock="wall clock"),
    }
    return Outcome(**(settings | overrides))  # type: ignore[arg-type]


def test_latex_is_escaped_and_every_row_has_all_columns() -> None:
    assert escape("a_b & 50 % × ↓ \\") == r"a\_b \& 50 \% $\times$ $\downarrow$ \textbackslash{}"
    rows = [line for line in latex_table(_outcome()).splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {4}
    assert any(line.startswith(r"my\_ff: RMS force, mean $\downarrow$ [eV/\AA{}] &") for line in rows)


def test_the_page_names_failures_alarms_and_provenance_escaped(tmp_path: Path) -> None:
    write_evaluation_report(tmp_path / "report.html", _outcome(), {"versions": {"x": "1 < 2"}})
    page = (tmp_path / "report.html").read_text()
    for text in (
        "my_ff: not converged",
        "<b>repeats</b>: &lt;b&gt;",
        "versions.x",
        "1 &lt; 2",
        "trained / baseline",
    ):
        assert text in page


def test_speed_is_in_the_figures_with_its_interval() -> None:
    ratio = outcome_json(_outcome())["speed"]["ratio"]
    assert ratio["estimate"] == pytest.approx(2.0)
    assert (ratio["low"], ratio["high"]) == (pytest.approx(2.0), pytest.approx(2.0))


def test_typical_molecules_are_at_the_median_and_the_worst_at_the_end() -> None:
    evaluation = _outcome().evaluations["trained"]
    typical, worst = typical_and_worst(evaluation, "my_ff.rms_force")
    assert worst.tolist() == [10, 9, 8, 7]  # the twelfth could not be judged
    assert typical.tolist() == [3, 4, 5, 6]


def test_charts_leave_out_what_is_not_finite() -> None:
    chart = draw_values("t", "Å", {"trained": np.array([0.0, 1.0, np.nan]), "data": np.array([np.inf])})
    assert "nan" not in chart
    assert chart.count("<path") == 1
    assert draw_values("t", "Å", {"trained": np.array([1.0, 1.0])}) == ""


def test_a_ceiling_has_the_sizes_asked_for_and_shares_nothing_with_the_reference() -> None:
    data = _named(*["H2O", "CH4", "NH3", "C2H6", "CO2"] * 4)
    positions = data.positions + torch.arange(20)[:, None, None] * data.node_mask[..., None]
    data = Molecules(positions, data.atomic_numbers, data.node_mask)
    chosen, rest = split_ceiling(data, [3, 3, 8, 5, 29], seed=0)
    assert chosen.num_atoms.tolist()[:4] == [3, 3, 8, 5]
    assert len(chosen) + len(rest) == 20
    everything = {round(float(x), 3) for x in torch.cat([chosen.positions, rest.positions])[:, 0, 0]}
    assert everything == {round(float(x), 3) for x in data.positions[:, 0, 0]}
    with pytest.raises(DataError, match="too few"):
        split_ceiling(data, [3] * 19, seed=0)


def test_policies_are_timed_in_turns() -> None:
    calls: list[str] = []
    speed = compare_speed(
        lambda: calls.append("b"), lambda: calls.append("t"), molecules=1, repeats=3, on_gpu=True
    )
    assert "".join(calls) == "bt" + "bt" + "tb" + "bt"
    assert speed.clock == "wall clock"
