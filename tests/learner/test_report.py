"""A report is whole, self-contained, tolerant of what a run lacks; pictures show the molecule itself."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from ase.build import molecule as ase_molecule

from elign.common.errors import DataError
from elign.common.molecule_io import from_ase, write_molecules
from elign.common.molecules import Molecules
from elign.learner.curves_figure import plot_curves
from elign.learner.line_chart import Chart, draw_chart, smoothed, thin_out, ticks
from elign.learner.molecule_drawing import draw_molecule, facing
from elign.learner.report import write_report
from elign.learner.report_charts import sections

VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Balance(HTMLParser):
    """Collects tags and complains of any that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _named(*names: str) -> Molecules:
    return from_ase([ase_molecule(name) for name in names])


def _run(folder: Path, columns: dict[str, list[float]]) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "metrics.parquet")
    return folder


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    names = (
        "rms_force_mean",
        "atom_stability",
        "kl",
        "time_update_s",
        "failures_several_pieces",
        "new_figure",
    )
    columns = {name: rng.uniform(0.1, 1.0, 30).tolist() for name in names}
    run = _run(tmp_path / "a <b> run", {"iteration": list(range(1, 31))} | columns)
    (run / "config.yaml").write_text(yaml.safe_dump({"policy": {"checkpoint": "</script><script>alert(1)"}}))
    state = {"state": "finished", "iterations": 30, "seed": 7, "versions": {"elign": "0.1.0"}}
    (run / "run.json").write_text(json.dumps(state))
    properties = {"rms_force": [0.25, float("nan")], "failure": [None, "several_pieces"]}
    write_molecules(run / "before.parquet", _named("CH3OH", "C2H6"), properties)
    write_molecules(run / "after.parquet", _named("CH3OH", "C2H6"), properties)
    return run


def test_a_full_run_gives_one_balanced_page_that_needs_no_network(full_run: Path) -> None:
    page = write_report(full_run).read_text(encoding="utf-8")
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"https?://|@import|<link|<img", page)
    assert all("src" not in attrs and "href" not in attrs for _, attrs in parser.seen)
    assert sum(attrs.get("class") == "molecule" for _, attrs in parser.seen) == 4
    for words in (
        "finished · 30 of 30 iterations · seed 7",
        "several pieces",
        "RMS force 0.25 eV/Å",
        "new figure",
    ):
        assert words in page


def test_names_and_values_cannot_break_out_of_the_page(full_run: Path) -> None:
    page = write_report(full_run).read_text(encoding="utf-8")
    assert "a &lt;b&gt; run" in page
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_one_iteration_and_nothing_else_still_reports(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", {"iteration": [1.0], "atom_stability": [0.5], "uniqueness": [float("nan")]})
    page = write_report(run).read_text(encoding="utf-8")
    assert "50.0 %" in page
    assert "sampled when the run ends" in page


def test_what_cannot_be_reported_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no metrics in"):
        write_report(tmp_path)
    run = _run(tmp_path / "run", {"iteration": [1.0], "kl": [0.5]})
    (run / "run.json").write_text("[not json")
    with pytest.raises(DataError, match=r"run\.json is not a JSON object"):
        write_report(run)
    pq.write_table(pa.table({"iteration": pa.array([], pa.float64())}), run / "metrics.parquet")
    with pytest.raises(DataError, match="no finished iteration"):
        write_report(run)


def test_columns_are_grouped_and_none_is_lost_unless_it_says_nothing() -> None:
    n = 5
    columns = {
        "rms_force_median": np.ones(n),
        "strange": np.ones(n),
        "kl": np.full(n, np.nan),
        "failures_not_converged": np.zeros(n),
        "time_reward_s": np.ones(n),
    }
    found = {section.title: section.charts for section in sections(columns)}
    assert [dict(c.series) for c in found["What is learned"]] == [{"median": "rms_force_median"}]
    assert [dict(c.series) for c in found["Time and failures"]] == [{"reward": "time_reward_s"}]
    assert [dict(c.series) for c in found["Other figures"]] == [{"strange": "strange"}]
    assert len(found) == 3


def test_charts_leave_gaps_and_stay_inside_the_drawing() -> None:
    values = np.array([1.0, np.nan, 3.0, 1000.0, 2.0])
    for may_be_log in (False, True):
        chart = Chart("title", {"label": "a"}, "%", "note", may_be_log)
        figure = ElementTree.fromstring(draw_chart(chart, np.arange(1, 6), {"a": values}))
        raw = next(path.attrib["d"] for path in figure.iter("path") if path.attrib["class"].startswith("raw"))
        assert raw.count("M") == 2
        numbers = [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([\d.]+ [\d.]+)", raw)]
        assert all(0 <= x <= 380 and 0 <= y <= 220 for x, y in numbers)
    assert "logarithmic" in "".join(figure.itertext())


def test_smoothing_keeps_constants_and_thinning_keeps_means() -> None:
    constant = np.full(50, 2.5)
    constant[7] = np.nan
    assert np.allclose(smoothed(constant), 2.5)
    values = np.random.default_rng(0).normal(size=4000)
    assert len(thin_out(values)) == 400
    assert thin_out(values).mean() == pytest.approx(values.mean())


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0.0, 1.0), (-3.2, 17.0), (1e-7, 9e-7), (120.0, 121.0)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 8
        assert all(low - 1e-12 <= t <= high + 1e-12 for t in found)


def test_turning_a_molecule_keeps_distances_and_handedness() -> None:
    points = np.random.default_rng(0).normal(size=(9, 3))
    turned = facing(points)
    before, after = (np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (points, turned))
    assert np.allclose(before, after)
    volume = np.linalg.det(points[1:4] - points[0])
    assert np.linalg.det(turned[1:4] - turned[0]) == pytest.approx(volume)


def test_pictures_have_every_atom_and_the_lines_of_every_bond() -> None:
    picture = ElementTree.fromstring(draw_molecule(_named("C2H4"), 0, 'a "label"'))
    atoms = [c for c in picture.iter("circle") if c.attrib["class"] == "atom"]
    halves = [line for line in picture.iter("line") if "stroke" in line.attrib]
    assert len(atoms) == 6
    assert len(halves) == 2 * (4 + 2)  # four single bonds and two lines of the double one
    places = [float(c.attrib[k]) for c in atoms for k in ("cx", "cy")]
    assert min(places) > 0
    assert max(places) < 200


def test_broken_molecules_have_pictures_too() -> None:
    molecules = Molecules.from_lists(
        [np.array([8]), np.array([6, 6]), np.array([80, 1])],
        [np.zeros((1, 3)), np.zeros((2, 3)), np.array([[0.0, 0, 0], [500.0, 0, 0]])],
    )
    for index in range(3):
        assert "nan" not in draw_molecule(molecules, index, "").lower()
    molecules.positions[0, 0, 0] = torch.nan
    assert "not finite" in draw_molecule(molecules, 0, "")


def test_curves_become_a_png(full_run: Path, tmp_path: Path) -> None:
    plot_curves(full_run, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    bare = _run(tmp_path / "bare", {"iteration": [1.0], "kl": [0.1]})
    with pytest.raises(DataError, match="have none of rms_force_mean"):
        plot_curves(bare, tmp_path / "none.png")
