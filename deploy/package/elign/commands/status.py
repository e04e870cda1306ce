"""``elign status``: how a run is, and what its rollout actors do."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elign.commands.options import AsJson
from elign.commands.targets import ClusterOfRun, RemoteRun, Target, locate

if TYPE_CHECKING:
    from elign.common.run_control import RunStatus


def status(
    run: Target,
    as_json: AsJson = False,
    address: ClusterOfRun = None,
) -> None:
    """Show how far a run is, and its rollout actors.

    \b
    Examples:
      elign status runs/first
      elign status runs/first --json
      elign status elign-first-1a2b3c4d
      elign status s3://bucket/runs/first
    """
    from elign.learner.run_mirror import run_figures

    place = locate(run, address)
    if isinstance(place, RemoteRun):
        if not as_json:
            print(f"job {place.job.submission_id}: {place.job.status.value}")
        print(place.ask("status", *(["--json"] if as_json else [])), end="")
    else:
        with run_figures(place) as (folder, _):
            _print_status(place, folder, as_json)


def _print_status(run: str, run_dir: Path, as_json: bool) -> None:
    from elign.common.run_control import driver_is_gone, read_state, read_status

    state, told = read_state(run_dir), read_status(run_dir)
    state["completed_iterations"] = _completed(run_dir, state)
    if state["state"] == "running" and told is not None and driver_is_gone(told):
        state["state"] = "dead"
    if as_json:
        print(json.dumps({**state, "live": None if told is None else told.model_dump(mode="json")}, indent=2))
        return
    print(f"{state['state']}: {state['completed_iterations']} of {state['iterations']} iterations")
    if state["state"] == "dead":
        print(f"its process is gone; to go on: elign train --run-dir {shlex.quote(run)} --resume")
    elif state["state"] == "running" and told is not None:
        _print_pool(told)


def _completed(run_dir: Path, state: dict[str, Any]) -> int:
    """run.json is written when a run starts and ends; in between, the metrics know."""
    from elign.learner.run_metrics import METRICS_FILE, read_metrics

    if state["state"] != "running" or not (run_dir / METRICS_FILE).exists():
        return int(state["completed_iterations"])
    return len(read_metrics(run_dir))


def _print_pool(told: RunStatus) -> None:
    pool = told.pool
    print(f"process {told.process_id} on {told.host}, heard of {time.time() - told.written:.0f} s ago")
    print(
        f"groups: {pool.issued} asked for, {pool.completed} completed, {pool.waiting} waiting, "
        f"{pool.rerun} given out again, {pool.set_aside} set aside"
    )
    print(f"rollout actors: {pool.target} wanted")
    for actor in pool.actors:
        work = "idle" if actor.group is None else f"group {actor.group}"
        where = "not placed yet" if actor.process_id is None else f"process {actor.process_id}, {work}"
        print(f"  {actor.state:<9} {where}")
