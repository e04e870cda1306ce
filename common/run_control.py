"""Talking to a run that is going on, through two small files in its directory.

``control.json`` holds the number of actors that ``elign scale`` wants; the run looks at it twice a second.
``status.json`` holds what the run says of its actors, for ``elign status``. Both are written whole or not at
all, so this works wherever the run's directory can be reached, on a shared file system too.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from elign.common.config import Settings
from elign.common.config_load import load_config
from elign.common.errors import ConfigError, DataError, StorageError
from elign.common.pool_status import PoolStatus
from elign.common.storage import write_json

CONTROL_FILE, STATUS_FILE = "control.json", "status.json"
STATUS_EVERY_S = 2.0


class RunStatus(Settings):
    """written: seconds since 1970. host, process_id: of the driver."""

    written: float
    host: str
    process_id: int
    pool: PoolStatus


class RunControl:
    """The run's side: a ``PoolControl``. Made anew with each start; older wishes are void then."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._seen: int | None = None
        self._wanted: int | None = None
        self._written = 0.0
        (run_dir / CONTROL_FILE).unlink(missing_ok=True)

    def wanted_actors(self) -> int | None:
        path = self._run_dir / CONTROL_FILE
        try:
            changed = path.stat().st_mtime_ns
            if changed != self._seen:
                self._wanted = int(json.loads(path.read_text(encoding="utf-8"))["actors"])
                self._seen = changed
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logging.getLogger("elign").warning("cannot read %s, so it changes nothing: %s", path, error)
        return self._wanted

    def report(self, status: PoolStatus) -> None:
        now = time.time()
        if now - self._written < STATUS_EVERY_S:
            return
        self._written = now
        told = RunStatus(written=now, host=socket.gethostname(), process_id=os.getpid(), pool=status)
        try:
            write_json(self._run_dir / STATUS_FILE, told.model_dump(mode="json"))
        except StorageError as error:  # a run need not end because nobody can be told how it is
            logging.getLogger("elign").warning("%s", error)


def request_actors(run_dir: Path, number: int) -> None:
    """Ask a run for a number of actors; raises ConfigError when it is none that the run allows."""
    stored = run_dir / "config.yaml"
    if not stored.exists():
        raise ConfigError(f"there is no run in {run_dir} ({stored} is missing)")
    actors = load_config(None, stored, []).actors
    if not actors.min <= number <= actors.max:
        raise ConfigError(
            f"--actors {number} is not within what the run allows: actors.min = {actors.min} to "
            f"actors.max = {actors.max}"
        )
    state = read_state(run_dir).get("state")
    if state != "running":
        raise ConfigError(f"the run in {run_dir} is {state}; set actors.max when you resume it")
    write_json(run_dir / CONTROL_FILE, {"actors": number})


def read_state(run_dir: Path) -> dict[str, Any]:
    """``run.json``; raises DataError when it is missing or damaged."""
    path = run_dir / "run.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def read_status(run_dir: Path) -> RunStatus | None:
    """What the run said last; None where it has not said anything. Raises DataError when it is damaged."""
    path = run_dir / STATUS_FILE
    try:
        return RunStatus.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def driver_is_gone(status: RunStatus) -> bool:
    """Whether the process is no more; False where it ran on another machine, which nobody here knows."""
    if status.host != socket.gethostname():
        return False
    try:
        os.kill(status.process_id, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's process is one, too
    return False
