"""Promises of the command line: quick help with examples for every command, and a true README."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    ("train",),
    ("status",),
    ("scale",),
    ("drain",),
    ("sample",),
    ("score",),
    ("relax",),
    ("evaluate",),
    ("pretrain",),
    ("profile",),
    ("watch",),
    ("submit",),
    ("logs",),
    ("stop",),
    ("cluster", "up"),
    ("cluster", "down"),
    ("dashboards", "export"),
    ("dashboards", "push"),
    ("policies", "list"),
    ("policies", "import"),
    ("force-fields", "list"),
    ("force-fields", "train"),
    ("config", "show"),
    ("config", "schema"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples_that_name_it(elign: Elign, command: tuple[str, ...]) -> None:
    done = elign(*command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    examples = done.stdout.split("Examples:")[1]
    assert f"elign {' '.join(command)}" in examples


def _check_options(elign: Elign, line: str) -> None:
    """The command of this line exists, and so do its options."""
    words = shlex.split(line.split(" > ")[0], comments=True)[1:]
    command = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
    assert command in COMMANDS, line
    done = elign(*command, "--help")
    options = done.stdout.split("Options:")[1]
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,]){re.escape(word)}\b", options), f"{word} in {line}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_options_in_examples_exist(elign: Elign, command: tuple[str, ...]) -> None:
    examples = re.split(r"\n(?:Arguments|Options):", elign(*command, "--help").stdout.split("Examples:")[1])[
        0
    ]
    for line in filter(None, map(str.strip, examples.splitlines())):
        _check_options(elign, line)


def test_help_lists_all_commands(elign: Elign) -> None:
    done = elign("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\s+{command[0]}\s", done.stdout, re.MULTILINE)


def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys\nsys.argv = ['elign', 'train', '--help']\nfrom elign.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'ray', 'rdkit', 'numpy', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_comes_within_a_blink(elign_process: Elign) -> None:
    """Half a second of processor time, so that a busy machine does not matter."""
    before = os.times()
    assert elign_process("--help").returncode == 0
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 0.5


def test_the_version_is_printed(elign: Elign) -> None:
    assert re.fullmatch(r"elign \d+\.\d+\.\d+\n", elign("--version").stdout)


def _code_blocks(document: str) -> list[list[str]]:
    """The lines of a document's blocks of commands."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    joined = [block.replace("\\\n", " ") for language, block in blocks if language in ("", "bash")]
    return [[line.removeprefix("$ ") for line in block.splitlines()] for block in joined]


def _commands_in(document: str) -> list[str]:
    """The ``elign ...`` lines among them."""
    return [line for block in _code_blocks(document) for line in block if line.startswith("elign ")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_readme_shows_every_command(command: tuple[str, ...]) -> None:
    assert any(line.startswith(f"elign {' '.join(command)}") for line in _commands_in("README.md"))


@pytest.mark.parametrize("line", _commands_in("README.md") + _commands_in("deploy/README.md"))
def test_every_command_of_the_readme_exists(elign: Elign, line: str) -> None:
    _check_options(elign, line)


def test_a_watched_run_is_five_commands_away_and_ten_on_kubernetes() -> None:
    here, _, there = _code_blocks("deploy/README.md")
    assert len(here) <= 5
    assert here[-1].startswith("elign watch")
    assert len(there) <= 10
    assert any(line.startswith("elign submit") for line in there)


def test_the_readme_has_the_two_quickstart_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^deploy/quickstart train\b", text, re.MULTILINE)
    assert re.search(r"^deploy/quickstart test\b", text, re.MULTILINE)
