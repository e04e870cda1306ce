"""Grafana dashboards as plain data: panels with PromQL queries, laid out in rows, and the JSON they become.

Plain dataclasses and not Grafana's SDK: what is used of its model is a page, and generated builders would
hide it behind a package that must be pinned to one release of Grafana.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 39
EVENT_STEP_S = 15
"""Seconds between two looks at an event's query; what is shorter may be missed."""
_COLUMNS, _HEIGHT = 24, 8


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the name of its series; ``$run`` and ``$__rate_interval`` are Grafana's."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One chart. unit: Grafana's name of it. kind: timeseries, or stat for a single number."""

    title: str
    queries: tuple[Query, ...]
    description: str
    unit: str = "none"
    kind: str = "timeseries"
    stacked: bool = False


@dataclass(frozen=True)
class Event:
    """Marks in all charts of a page, drawn from a query; Grafana calls them annotations.

    There is a mark at each moment at which the query has a value; with ``at_value`` it is where the value
    says, in milliseconds since 1970. title: may name labels, as in ``{{run}}``.
    """

    name: str
    expression: str
    title: str
    colour: str
    at_value: bool = False


@dataclass(frozen=True)
class Row:
    """Panels beside each other under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page of rows; uid: fixed, so that a later version takes the place of an earlier one."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    events: tuple[Event, ...] = ()

    def queries(self) -> Iterator[tuple[str, str]]:
        """(panel or event, expression) of every query."""
        for event in self.events:
            yield event.name, event.expression
        for row in self.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield panel.title, query.expression

    def json(self) -> dict[str, Any]:
        """What Grafana imports."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["elign"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [_data_source_variable(), _run_variable()]},
            "annotations": {"list": [_annotation(event) for event in self.events]},
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[dict[str, Any]]:
        identifier, y = 1, 0
        for row in self.rows:
            place = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
            yield {"id": identifier, "type": "row", "title": row.title, "gridPos": place, "panels": []}
            identifier, y = identifier + 1, y + 1
            width = _COLUMNS // len(row.panels)
            for index, panel in enumerate(row.panels):
                place = {"x": index * width, "y": y, "w": width, "h": _HEIGHT}
                yield {"id": identifier, "gridPos": place, **_panel(panel)}
                identifier += 1
            y += _HEIGHT


def _panel(panel: Panel) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {"fillOpacity": 0}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATA_SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom if panel.kind == "timeseries" else {}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}},
    }


def _annotation(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": event.colour,
        "expr": event.expression,
        "step": f"{EVENT_STEP_S}s",
        "titleFormat": event.title,
        "tagKeys": "run",
        "useValueForTime": event.at_value,
    }


def _data_source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _run_variable() -> dict[str, Any]:
    """Runs that have data, newest choice refreshed with the time range."""
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": "label_values(ray_elign_iteration, run)", "refId": "run"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
