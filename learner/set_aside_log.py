"""``plans_set_aside.json``: the groups that a run gave up, each with what went wrong in its tries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elign.common.errors import DataError
from elign.common.rollout import SetAside
from elign.common.storage import write_json

SET_ASIDE_FILE = "plans_set_aside.json"


def read_set_aside(run_dir: Path) -> list[dict[str, Any]]:
    """Entries {iteration, group, num_atoms, causes}; none where the file is missing.

    Raises DataError when it is damaged.
    """
    path = run_dir / SET_ASIDE_FILE
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is not a JSON list: {error}") from error


class SetAsideLog:
    """Appends entries; what came after iteration ``completed`` is dropped, as in ``MetricsLog``."""

    def __init__(self, run_dir: Path, *, completed: int) -> None:
        self._path = run_dir / SET_ASIDE_FILE
        self._entries = [e for e in read_set_aside(run_dir) if e["iteration"] <= completed]
        if self._path.exists():
            write_json(self._path, self._entries)

    def append(self, iteration: int, given_up: Sequence[SetAside]) -> None:
        """Write the file anew when there is something new."""
        self._entries += [
            {
                "iteration": iteration,
                "group": one.plan.group_id,
                "num_atoms": one.plan.num_atoms,
                "causes": list(one.causes),
            }
            for one in given_up
        ]
        if given_up:
            write_json(self._path, self._entries)
