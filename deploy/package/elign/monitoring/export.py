"""Dashboards, alert rules and the table of metrics as files; those in ``deploy/`` are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from elign.common.metric_registry import metrics_table
from elign.common.storage import write_text
from elign.monitoring.alerts import ALERTS, prometheus_rules
from elign.monitoring.dashboards import DASHBOARDS

RULES_FILE, METRICS_FILE = "elign-rules.yml", "METRICS.md"


def export_files(folder: Path) -> list[Path]:
    """Write all files into ``folder`` and return their paths; raises StorageError."""
    contents = {f"{dashboard.uid}.json": _json(dashboard.json()) for dashboard in DASHBOARDS}
    contents[RULES_FILE] = yaml.safe_dump(prometheus_rules(), sort_keys=False, width=1000)
    contents[METRICS_FILE] = metrics_page()
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def metrics_page() -> str:
    """Metrics and alerts in Markdown."""
    alerts = "\n".join(
        f"| {alert.name} | {alert.severity} | `{alert.promql}` | {alert.lasting} |" for alert in ALERTS
    )
    return (
        "# Metrics and alerts\n\n"
        "Made by `elign dashboards export` from `common/metric_registry.py` and "
        "`deploy/package/elign/monitoring/alerts.py`; change those.\n\n"
        "Gauges hold the value of the last iteration. The names are those in Prometheus, where Ray adds "
        "labels of its own (WorkerId, NodeAddress, ...).\n\n"
        f"{metrics_table()}\n"
        "| alert | severity | condition | for |\n|---|---|---|---|\n"
        f"{alerts}\n"
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
