"""Puts folder, data source, dashboards and alert rules into a Grafana; a second time changes nothing.

    push_dashboards(Target("http://localhost:3000", "http://localhost:9090"), token)

What somebody edited by hand in Grafana is found by a digest that each pushed dashboard carries, and kept. All
is read and compared before the first thing is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import requests
from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException

from elign.common.errors import MonitoringError
from elign.monitoring.alerts import RULE_GROUP, grafana_rule_group
from elign.monitoring.dashboards import DASHBOARDS

FOLDER_UID, FOLDER_TITLE = "elign", "Elign"
DATA_SOURCE_UID, DATA_SOURCE_NAME = "elign-prometheus", "Elign Prometheus"
DIGEST = "elign_digest"
_TIMEOUT_S = 15.0
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Target:
    """url: of Grafana. prometheus: where Grafana reaches Prometheus."""

    url: str
    prometheus: str


@dataclass(frozen=True)
class _Change:
    """Something that is not yet as it should be."""

    name: str
    write: Callable[[], Any]


def push_dashboards(target: Target, token: str | None, *, overwrite: bool = False) -> list[str]:
    """Bring Grafana up to date; returns the names of what was written, which is nothing the second time.

    overwrite: dashboards that were edited by hand too. Raises MonitoringError when Grafana cannot be reached,
    refuses the token, or holds an edited dashboard.
    """
    api = GrafanaApi.from_url(_clean(target.url), credential=token, timeout=_TIMEOUT_S)
    with _explained(target.url, has_token=token is not None):
        changes = [*_folder(api), *_data_source(api, target.prometheus), *_dashboards(api, overwrite)]
        changes += _alerts(api)
        for change in changes:
            change.write()
    return [change.name for change in changes]


def check_prometheus(target: Target, token: str | None) -> None:
    """Raises MonitoringError when Grafana, for its part, cannot reach Prometheus.

    Only Grafana itself knows, and only once it has the data source. Older than 9, it has no answer to that.
    """
    api = GrafanaApi.from_url(_clean(target.url), credential=token, timeout=_TIMEOUT_S)
    try:
        found = _found(lambda: api.datasource.health(DATA_SOURCE_UID))
    except GrafanaException as error:
        raise MonitoringError(
            f"Grafana has everything now, but cannot reach Prometheus at {target.prometheus} "
            f"({error.message}); push again with the right --prometheus"
        ) from error
    if found is not None and found.get("status") != "OK":
        raise MonitoringError(f"Grafana says of Prometheus at {target.prometheus}: {found.get('message')}")


def marked(dashboard: dict[str, Any]) -> dict[str, Any]:
    """The dashboard with its own digest in a hidden variable."""
    variable = {"name": DIGEST, "type": "constant", "hide": 2, "query": digest(dashboard)}
    variables = [*dashboard["templating"]["list"], variable]
    return {**dashboard, "templating": {"list": variables}}


def digest(dashboard: dict[str, Any]) -> str:
    """Of a dashboard's content, without what Grafana adds and without an earlier digest."""
    content = {name: value for name, value in dashboard.items() if name not in ("id", "version")}
    variables = [v for v in dashboard.get("templating", {}).get("list", []) if v.get("name") != DIGEST]
    content["templating"] = {"list": variables}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _folder(api: GrafanaApi) -> Iterator[_Change]:
    if _found(lambda: api.folder.get_folder(FOLDER_UID)) is None:
        yield _Change("folder", lambda: api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID))


def _data_source(api: GrafanaApi, prometheus: str) -> Iterator[_Change]:
    wanted = {
        "uid": DATA_SOURCE_UID,
        "name": DATA_SOURCE_NAME,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
        "jsonData": {"httpMethod": "POST"},
    }
    found = _found(lambda: api.datasource.get_datasource_by_uid(DATA_SOURCE_UID))
    if found is None:
        yield _Change("data source", lambda: api.datasource.create_datasource(wanted))
    elif any(found.get(name) != value for name, value in wanted.items()):
        yield _Change("data source", lambda: api.datasource.update_datasource_by_uid(DATA_SOURCE_UID, wanted))


def _dashboards(api: GrafanaApi, overwrite: bool) -> Iterator[_Change]:
    for dashboard in DASHBOARDS:
        wanted = marked(dashboard.json())
        found = (_found(partial(api.dashboard.get_dashboard, dashboard.uid)) or {}).get("dashboard")
        if found is not None and digest(found) == digest(wanted):
            continue
        if found is not None and _stored_digest(found) != digest(found) and not overwrite:
            raise MonitoringError(
                f"the dashboard {dashboard.title!r} was edited in Grafana; nothing was written. Save it "
                "there under another name, or replace it with --overwrite"
            )
        body = {
            # the version makes Grafana refuse when somebody saves at the same time
            "dashboard": {**wanted, "version": found["version"]} if found else wanted,
            "folderUid": FOLDER_UID,
            "overwrite": overwrite,
            "message": "pushed by elign",
        }
        yield _Change(f"dashboard {dashboard.title}", partial(api.dashboard.update_dashboard, body))


def _alerts(api: GrafanaApi) -> Iterator[_Change]:
    wanted = grafana_rule_group(FOLDER_UID, DATA_SOURCE_UID)
    rules = api.alertingprovisioning
    found = _found(lambda: rules.get_rule_group(FOLDER_UID, RULE_GROUP))
    if found is None or not _contains(found, wanted):
        yield _Change("alert rules", lambda: rules.update_rule_group(FOLDER_UID, RULE_GROUP, wanted))


def _contains(found: Any, wanted: Any) -> bool:
    """Is all that is wanted in what was found? Grafana adds fields of its own, but no rule."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_contains(found.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        same_length = isinstance(found, list) and len(found) == len(wanted)
        return same_length and all(map(_contains, found, wanted))
    return bool(found == wanted)


def _stored_digest(dashboard: dict[str, Any]) -> str | None:
    variables = dashboard.get("templating", {}).get("list", [])
    return next((v.get("query") for v in variables if v.get("name") == DIGEST), None)


def _found(read: Callable[[], _Answer]) -> _Answer | None:
    """What is there; None when Grafana knows no such thing."""
    try:
        return read()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise


def _clean(url: str) -> str:
    """With the slash at the end that grafana-client needs behind a path."""
    return url.rstrip("/") + "/"


@contextmanager
def _explained(url: str, *, has_token: bool) -> Iterator[None]:
    """Turn what can go wrong in the block into one MonitoringError; the token is in none of them."""
    try:
        yield
    except GrafanaException as error:
        hints = {
            401: "it does not accept the token in GRAFANA_TOKEN (wrong, or expired)"
            if has_token
            else "it wants a token: set GRAFANA_TOKEN to a service account's",
            403: "the token may not do this; it needs the role Admin (data sources and alert rules)",
            412: "somebody saved a dashboard meanwhile; try again",
        }
        why = hints.get(error.status_code, f"it answered {error.status_code}: {error.message}")
        raise MonitoringError(f"Grafana at {url}: {why}") from error
    except (requests.RequestException, json.JSONDecodeError) as error:
        raise MonitoringError(
            f"there is no Grafana to be reached at {url} ({type(error).__name__})"
        ) from error
