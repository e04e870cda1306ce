"""Registry, dashboards, alerts and the files in deploy/ belong together: every query is checked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from elign.common.metric_registry import METRICS, RUN
from elign.monitoring.alerts import ALERTS, grafana_rule_group
from elign.monitoring.dashboards import DASHBOARDS, RAY_METRICS
from elign.monitoring.export import export_files
from tests.deploy.monitoring.promql import concrete, grouping_labels, series_in

COMMITTED = Path(__file__).resolve().parents[3] / "deploy" / "monitoring"
LABELS = {series: {RUN, *m.tags, "le"} for m in METRICS.values() for series in m.series}
LABELS |= {name: set(labels) for name, labels in RAY_METRICS.items()}
QUERIES = [
    *((f"{d.title}: {panel}", query) for d in DASHBOARDS for panel, query in d.queries()),
    *((f"alert {alert.name}", alert.promql) for alert in ALERTS),
]


def test_series_of_an_expression_are_found() -> None:
    expression = 'sum by (run, le) (rate(a_bucket{run=~"$run", x="y"}[5m])) / b or c offset 5m * 0'
    assert series_in(expression) == {"a_bucket": {"run", "x"}, "b": set(), "c": set()}
    assert grouping_labels(expression) == {"run", "le"}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[f"{w} {i}" for i, (w, _) in enumerate(QUERIES)])
def test_every_query_uses_metrics_and_labels_that_exist(where: str, query: str) -> None:
    used = series_in(query)
    assert used, where
    assert used.keys() <= LABELS.keys()
    for name, labels in used.items():
        assert labels <= LABELS[name]
    assert grouping_labels(query) <= set().union(*(LABELS[name] for name in used))


def test_every_query_of_a_run_is_limited_to_the_chosen_runs() -> None:
    for dashboard in DASHBOARDS:
        for panel, query in dashboard.queries():
            if not series_in(query).keys() & RAY_METRICS.keys():
                assert query.count("ray_elign_") == query.count('run=~"$run"'), panel


def test_every_metric_is_shown_or_alerted_on() -> None:
    text = " ".join(query for _, query in QUERIES)
    # what TensorBoard and the report show is enough
    left_out = {"elign_formation_energy", "elign_loss", "elign_objective", "elign_policy_version"}
    left_out |= {"elign_molecules", "elign_optimizer_steps"}
    unseen = {m.name for m in METRICS.values() if not any(series in text for series in m.series)}
    assert unseen == left_out


def test_the_real_parser_accepts_every_query(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    rules = [{"record": f"query{i}", "expr": concrete(query)} for i, (_, query) in enumerate(QUERIES)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    for file in (path, COMMITTED / "elign-rules.yml"):
        done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_whole_and_their_panels_do_not_overlap() -> None:
    assert len({d.uid for d in DASHBOARDS}) == len(DASHBOARDS) == 3
    for dashboard in DASHBOARDS:
        content = dashboard.json()
        assert {v["name"] for v in content["templating"]["list"]} == {"datasource", "run"}
        panels = content["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            own = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not own & cells
            cells |= own
            assert panel["type"] == "row" or (panel["targets"] and panel["description"])


def test_every_dashboard_marks_what_happened_to_the_runs() -> None:
    for dashboard in DASHBOARDS:
        marks = dashboard.json()["annotations"]["list"]
        assert [mark["name"] for mark in marks][:3] == ["Run began", "Run ended", "Checkpoint"]
        for mark in marks:
            # a time must come in milliseconds
            assert mark["useValueForTime"] == mark["expr"].endswith("* 1000")
            assert set(re.findall(r"{{(\w+)}}", mark["titleFormat"])) <= grouping_labels(mark["expr"])


def test_grafanas_own_model_loses_nothing_of_a_dashboard() -> None:
    """The SDK's types are made from Grafana's schema: a field they do not know is lost on the way."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="pip install '.[dev]'")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")

    def there_and_back(content: dict[str, Any]) -> Any:
        model = models.Dashboard.from_json(content)
        return json.loads(encoder.JSONEncoder(sort_keys=True).encode(model))

    for dashboard in DASHBOARDS:
        content = dashboard.json()
        lost = {re.sub(r"\d+", "*", place) for place in _lost(content, there_and_back(content))}
        # what belongs to Prometheus in a mark is no part of the model (those of panels are, as a target)
        fields = ("step", "titleFormat", "tagKeys", "useValueForTime")
        assert lost == {f"/annotations/list/*/{field}" for field in fields}
    assert _lost({"titel": "x"}, there_and_back({"titel": "x"})) == ["/titel"]


def _lost(sent: Any, back: Any, place: str = "") -> list[str]:
    """Where what was sent is not what came back; defaults may be added."""
    if isinstance(sent, dict) and isinstance(back, dict):
        return [p for key in sent for p in _lost(sent[key], back.get(key), f"{place}/{key}")]
    if isinstance(sent, list) and isinstance(back, list) and len(sent) == len(back):
        return [
            p for i, pair in enumerate(zip(sent, back, strict=True)) for p in _lost(*pair, f"{place}/{i}")
        ]
    return [] if sent == back else [place]


def test_alerts_have_names_of_their_own_and_a_threshold_that_grafana_can_evaluate() -> None:
    group = grafana_rule_group("folder", "source")
    assert len({rule["uid"] for rule in group["rules"]}) == len(ALERTS)
    for rule in group["rules"]:
        query, threshold = rule["data"]
        assert query["datasourceUid"] == "source"
        assert threshold["model"]["expression"] == query["refId"]
        assert rule["condition"] == threshold["refId"]


def test_the_files_in_deploy_are_those_of_the_code(tmp_path: Path) -> None:
    for made in export_files(tmp_path):
        assert (COMMITTED / made.name).read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), (
            "run: elign dashboards export deploy/monitoring"
        )
        if made.suffix == ".json":
            assert json.loads(made.read_text(encoding="utf-8"))["panels"]
