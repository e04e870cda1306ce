"""Promises of ``deploy/quickstart``: clear messages, no second set-up, and nothing done on wrong usage.

The set-up itself is what ``.ci/run`` begins with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("actors", "common", "learner", "reward_server")
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the script looks at."""
    (tmp_path / "deploy" / "package" / "elign").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "quickstart", tmp_path / "deploy" / "quickstart")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / "deploy" / "package" / "elign" / room).symlink_to(f"../../../{room}")
    return tmp_path


def _run(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "deploy" / "quickstart"), *arguments],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _fake_environment(checkout: Path, stamp: str) -> None:
    """A .venv whose commands only print what they were called with."""
    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("elign", "python"):
        (folder / name).write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        (folder / name).chmod(0o755)
    (checkout / ".venv" / ".elign-stamp").write_text(stamp)


def _stamp(checkout: Path) -> str:
    """The fingerprint the script itself computes."""
    text = (checkout / "deploy" / "quickstart").read_text().rsplit("\ncommand=", 1)[0]
    script = f'{text}\nfingerprint "$PYTHON"\n'
    place = checkout / "deploy" / "fingerprint"
    place.write_text(script)
    done = subprocess.run(
        ["bash", str(place)], env=ENVIRONMENT, capture_output=True, text=True, check=True, cwd=checkout
    )
    return done.stdout.strip()


def test_wrong_usage_shows_the_usage(checkout: Path) -> None:
    for arguments in ([], ["trian"]):
        done = _run(checkout, *arguments)
        assert done.returncode == 2
        assert "Usage: deploy/quickstart train | test | setup" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_checkout_without_links_says_how_to_repair_it(checkout: Path) -> None:
    link = checkout / "deploy" / "package" / "elign" / "common"
    link.unlink()
    link.write_text("../../../common")
    done = _run(checkout, "train")
    assert done.returncode == 2
    assert "git config core.symlinks true && git checkout -- deploy/package" in done.stderr


def test_without_python_3_11_it_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = _run(checkout, "setup", PATH=str(tools), PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "needs Python 3.11" in done.stderr


def test_a_finished_set_up_is_not_done_again(checkout: Path) -> None:
    _fake_environment(checkout, _stamp(checkout))
    assert _run(checkout, "setup").stdout == ""
    assert _run(checkout, "test", "-x").stdout == "python -m pytest -x\n"
    assert _run(checkout, "train").stdout == "elign train --preset laptop --run-dir runs/first\n"


def test_train_goes_on_with_a_run_that_was_begun(checkout: Path) -> None:
    _fake_environment(checkout, _stamp(checkout))
    (checkout / "runs" / "first").mkdir(parents=True)
    (checkout / "runs" / "first" / "config.yaml").write_text("")
    assert _run(checkout, "train").stdout == "elign train --run-dir runs/first --resume\n"


def test_another_pyproject_makes_a_new_set_up(checkout: Path) -> None:
    before = _stamp(checkout)
    (checkout / "pyproject.toml").write_text("[project]\n")
    assert _stamp(checkout) != before


def test_the_scripts_can_be_run() -> None:
    for script in (ROOT / "deploy" / "quickstart", ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)
