"""When somebody should look: alerts as plain data, as Grafana's alert rules and as Prometheus' rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from elign.monitoring.promql import grown

RULE_GROUP = "elign"
_INTERVAL_S = 60


@dataclass(frozen=True)
class Alert:
    """Fires when ``expression`` has been above (or below) ``limit`` for a time (PromQL duration)."""

    name: str
    expression: str
    comparison: Literal["gt", "lt"]
    limit: float
    lasting: str
    severity: Literal["warning", "critical"]
    summary: str

    @property
    def promql(self) -> str:
        """The whole condition."""
        return f"{self.expression} {'>' if self.comparison == 'gt' else '<'} {self.limit:g}"

    @property
    def uid(self) -> str:
        """Fixed, so that a later version takes the place of an earlier one."""
        return f"elign-{self.name}"


def _while_running(expression: str) -> str:
    """Of runs that still report: a window would go on to speak of one that has ended."""
    return f"({expression} and on (run) ray_elign_iteration)"


ALERTS = (
    Alert(
        "no-progress",
        _while_running("changes(max by (run) (ray_elign_iteration)[30m:1m])"),
        "lt",
        1,
        "30m",
        "critical",
        "Run {{ $labels.run }} has completed no iteration for an hour.",
    ),
    Alert(
        "reward-collapse",
        _while_running(
            'max by (run) (avg_over_time(ray_elign_rms_force{statistic="mean"}[15m])) '
            '/ min by (run) (min_over_time(ray_elign_rms_force{statistic="mean"}[6h]))'
        ),
        "gt",
        2,
        "10m",
        "warning",
        "The RMS force of run {{ $labels.run }} is more than twice its best of the last six hours.",
    ),
    Alert(
        "uniqueness-collapse",
        _while_running("max by (run) (avg_over_time(ray_elign_uniqueness[15m]))"),
        "lt",
        0.5,
        "10m",
        "warning",
        "Half of the valid molecules of run {{ $labels.run }} are repeats.",
    ),
    Alert(
        "kl-runaway",
        _while_running(
            "max by (run) (avg_over_time(ray_elign_kl[15m])) "
            "/ max by (run) (quantile_over_time(0.5, ray_elign_kl[6h]))"
        ),
        "gt",
        5,
        "10m",
        "warning",
        "The KL divergence of run {{ $labels.run }} is five times its median of the last six hours.",
    ),
    Alert(
        "reward-gamed",
        "max by (run, alarm) (ray_elign_alarm)",
        "gt",
        0.5,
        "10m",
        "warning",
        "Run {{ $labels.run }} may be gaming its reward: {{ $labels.alarm }}.",
    ),
    Alert(
        "actors-missing",
        'max by (run) (ray_elign_actors{state="wanted"}) - max by (run) (ray_elign_actors{state="up"})',
        "gt",
        0,
        "15m",
        "warning",
        "Run {{ $labels.run }} has had fewer rollout actors than it wants for a quarter of an hour.",
    ),
    Alert(
        "replicas-lost",
        grown("ray_elign_reward_replicas_replaced_total", "15m"),
        "gt",
        2,
        "1m",
        "critical",
        "The reward server of run {{ $labels.run }} loses replicas.",
    ),
    Alert(
        "queries-failed",
        grown("ray_elign_reward_queries_total", "15m", 'outcome="failed"'),
        "gt",
        2,
        "1m",
        "critical",
        "The reward server of run {{ $labels.run }} could not answer queries.",
    ),
    Alert(
        "no-reward-replica",
        "max by (run) (ray_elign_reward_replicas)",
        "lt",
        1,
        "5m",
        "critical",
        "The reward server of run {{ $labels.run }} has no replica.",
    ),
)


def grafana_rule_group(folder_uid: str, data_source_uid: str) -> dict[str, Any]:
    """The body of Grafana's rule group ``elign``, with all alerts."""
    rules = [_grafana_rule(alert, folder_uid, data_source_uid) for alert in ALERTS]
    return {"title": RULE_GROUP, "folderUid": folder_uid, "interval": _INTERVAL_S, "rules": rules}


def prometheus_rules() -> dict[str, Any]:
    """The content of a rules file for Prometheus itself, for those who alert without Grafana."""
    rules = [
        {
            "alert": alert.uid,
            "expr": alert.promql,
            "for": alert.lasting,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary},
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": RULE_GROUP, "interval": f"{_INTERVAL_S}s", "rules": rules}]}


def _grafana_rule(alert: Alert, folder_uid: str, data_source_uid: str) -> dict[str, Any]:
    query = {
        "refId": "A",
        "datasourceUid": data_source_uid,
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": {"refId": "A", "expr": alert.expression, "instant": True},
    }
    evaluator = {"type": alert.comparison, "params": [alert.limit]}
    threshold = {
        "refId": "B",
        "datasourceUid": "__expr__",
        "relativeTimeRange": {"from": 0, "to": 0},
        "model": {
            "refId": "B",
            "type": "threshold",
            "expression": "A",
            "conditions": [{"evaluator": evaluator}],
        },
    }
    return {
        "uid": alert.uid,
        "title": alert.name,
        "orgID": 1,
        "folderUID": folder_uid,
        "ruleGroup": RULE_GROUP,
        "condition": "B",
        "data": [query, threshold],
        "for": alert.lasting,
        # a run that has ended reports nothing, which is no reason to wake anybody
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary},
        "isPaused": False,
    }
