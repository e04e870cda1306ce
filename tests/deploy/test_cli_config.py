"""Promises of ``elign config``: what it prints is what a run would use, in a form that loads back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from elign.common.config_load import config_schema, load_config

Elign = Callable[..., "subprocess.CompletedProcess[str]"]


def test_show_prints_yaml_that_loads_back(elign: Elign, tmp_path: Path) -> None:
    done = elign("config", "show", "--preset", "laptop", "--set", "run.iterations=7")
    assert done.returncode == 0
    assert done.stderr == ""
    file = tmp_path / "mine.yaml"
    file.write_text(done.stdout)
    assert load_config(None, file, []) == load_config("laptop", None, ["run.iterations=7"])
    again = elign("config", "show", "--config", str(file), "--json")
    assert json.loads(again.stdout)["run"]["iterations"] == 7


def test_schema_is_the_schema(elign: Elign) -> None:
    assert json.loads(elign("config", "schema").stdout) == config_schema()
