"""Running ``elign`` as a user does: in this process, which is quick, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from elign import cli

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
PACKAGE = Path(__file__).resolve().parents[2] / "deploy" / "package"


@pytest.fixture
def elign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Elign:
    """``elign("config", "schema")`` in an empty folder, with an empty folder of the user's own models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELIGN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["elign", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        code = left.value.code
        return subprocess.CompletedProcess(
            arguments, code if isinstance(code, int) else int(bool(code)), captured.out, captured.err
        )

    return run


@pytest.fixture
def elign_process(tmp_path: Path) -> Elign:
    """The same in a process of its own; keywords are environment variables."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "elign", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(PACKAGE),
                "ELIGN_HOME": str(tmp_path / "home"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run
