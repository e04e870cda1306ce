"""What happened to runs, as marks in the dashboards' charts: Grafana asks Prometheus, a run needs no token.

A beginning and a checkpoint tell their own time. An end is seen by the run's figures being gone, which they
are of a run that was killed, too. Trouble is a counter that has grown.
"""

from __future__ import annotations

from elign.monitoring.panels import Event
from elign.monitoring.promql import grown

_RUN = 'run=~"$run"'
_STARTED = f"max by (run) (ray_elign_started_time_seconds{{{_RUN}}})"
_STARTED_BEFORE = f"max by (run) (ray_elign_started_time_seconds{{{_RUN}}} offset 1m)"
_SAVED = f"max by (run) (ray_elign_checkpoint_time_seconds{{{_RUN}}})"


def _has_grown(counter: str, matchers: str = "") -> str:
    return f"{grown(counter, '1m', _RUN + matchers)} > 0"


EVENTS = (
    Event("Run began", f"{_STARTED} * 1000", "{{run}} began, or went on", "blue", at_value=True),
    Event("Run ended", f"{_STARTED_BEFORE} unless {_STARTED}", "{{run}} ended", "purple"),
    Event("Checkpoint", f"{_SAVED} * 1000", "{{run}}: checkpoint", "green", at_value=True),
    Event("Alarm", f"max by (run, alarm) (ray_elign_alarm{{{_RUN}}}) > 0", "{{run}}: {{alarm}}", "orange"),
    Event("Actor lost", _has_grown("ray_elign_actors_lost_total"), "{{run}}: rollout actor lost", "red"),
    Event(
        "Group set aside",
        _has_grown("ray_elign_plans_total", ', fate="set_aside"'),
        "{{run}}: a group was set aside",
        "red",
    ),
    Event(
        "Replica lost",
        _has_grown("ray_elign_reward_replicas_replaced_total"),
        "{{run}}: replica of the reward server lost",
        "red",
    ),
    Event(
        "Query failed",
        _has_grown("ray_elign_reward_queries_total", ', outcome="failed"'),
        "{{run}}: the reward server could not answer",
        "red",
    ),
)
