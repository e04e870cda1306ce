"""Pushing dashboards: complete, idempotent, careful with other people's edits, clear when refused.

Against a stand-in for Grafana (see there).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from elign.common.errors import MonitoringError
from elign.monitoring.dashboards import DASHBOARDS
from elign.monitoring.grafana import DATA_SOURCE_UID, Target, push_dashboards
from tests.deploy.monitoring.grafana_stand_in import ADMIN, VIEWER, Grafana, serving

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
PROMETHEUS = "http://localhost:9090"


@pytest.fixture
def grafana() -> Grafana:
    return Grafana()


@pytest.fixture
def target(grafana: Grafana) -> Iterator[Target]:
    with serving(grafana) as url:
        yield Target(url, PROMETHEUS)


def test_all_is_there_after_a_push_and_a_second_one_writes_nothing(grafana: Grafana, target: Target) -> None:
    assert len(push_dashboards(target, ADMIN)) == 2 + len(DASHBOARDS) + 1
    assert grafana.dashboards.keys() == {dashboard.uid for dashboard in DASHBOARDS}
    assert grafana.sources[DATA_SOURCE_UID]["url"] == PROMETHEUS
    assert [len(group["rules"]) for group in grafana.rules.values()] == [9]
    before = list(grafana.writes)
    assert push_dashboards(target, ADMIN) == []
    assert grafana.writes == before


def test_only_what_differs_is_written(grafana: Grafana, target: Target) -> None:
    push_dashboards(target, ADMIN)
    grafana.writes.clear()
    moved = Target(target.url, "http://elsewhere:9090")
    assert push_dashboards(moved, ADMIN) == ["data source"]
    assert grafana.writes == [f"PUT /datasources/uid/{DATA_SOURCE_UID}"]
    grafana.rules.popitem()
    assert push_dashboards(moved, ADMIN) == ["alert rules"]


def test_a_dashboard_edited_by_hand_is_kept_until_overwrite(grafana: Grafana, target: Target) -> None:
    push_dashboards(target, ADMIN)
    uid = DASHBOARDS[1].uid
    grafana.dashboards[uid]["dashboard"]["title"] = "Mine"
    grafana.writes.clear()
    with pytest.raises(MonitoringError, match="was edited in Grafana; nothing was written"):
        push_dashboards(target, ADMIN)
    assert grafana.writes == []
    assert push_dashboards(target, ADMIN, overwrite=True) == [f"dashboard {DASHBOARDS[1].title}"]
    assert grafana.dashboards[uid]["dashboard"]["title"] == DASHBOARDS[1].title
    assert push_dashboards(target, ADMIN) == []


def test_an_older_pushed_version_is_replaced(
    grafana: Grafana, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = (DASHBOARDS[0].__class__(DASHBOARDS[0].uid, "Old title", "", ()),)
    with monkeypatch.context() as patch:
        patch.setattr("elign.monitoring.grafana.DASHBOARDS", older)
        push_dashboards(target, ADMIN)
    assert f"dashboard {DASHBOARDS[0].title}" in push_dashboards(target, ADMIN)
    assert grafana.dashboards[DASHBOARDS[0].uid]["dashboard"]["version"] == 2


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "it wants a token: set GRAFANA_TOKEN"),
        ("secret-but-expired", "does not accept the token"),
        (VIEWER, "needs the role Admin"),
    ],
)
def test_refusals_are_explained_without_the_token(
    grafana: Grafana, target: Target, token: str | None, message: str
) -> None:
    with pytest.raises(MonitoringError, match=message) as caught:
        push_dashboards(target, token)
    assert "secret-but-expired" not in str(caught.value)
    assert grafana.folders == grafana.dashboards == {}


def test_the_command_takes_the_token_from_the_environment(
    elign: Elign, grafana: Grafana, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", ADMIN)
    done = elign("dashboards", "push", "--grafana", target.url)
    assert done.returncode == 0
    assert "written: folder" in done.stdout
    assert ADMIN not in done.stdout + done.stderr
    assert "all was up to date" in elign("dashboards", "push", "--grafana", target.url).stdout
    assert grafana.rules


def test_a_prometheus_that_grafana_cannot_reach_is_named(
    elign: Elign, grafana: Grafana, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", ADMIN)
    grafana.reaches_prometheus = False
    done = elign("dashboards", "push", "--grafana", target.url, "--prometheus", "http://nowhere:9090")
    assert done.returncode == 1
    assert "cannot reach Prometheus at http://nowhere:9090" in done.stderr
    assert "connection refused" in done.stderr
    assert "Traceback" not in done.stderr
    grafana.reaches_prometheus = True
    assert elign("dashboards", "push", "--grafana", target.url).returncode == 0


def test_no_grafana_is_one_line(elign: Elign) -> None:
    done = elign("dashboards", "push", "--grafana", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("elign: error: there is no Grafana to be reached at http://127.0.0.1:9")
    assert "Traceback" not in done.stderr
