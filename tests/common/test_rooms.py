"""Promises of the house: its top level holds the agreed rooms, and no Ray gets into ``common``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"actors", "common", "deploy", "learner", "reward_server", "tests"}
SHELLS = {
    "actors/draining.py",
    "actors/pool.py",
    "actors/roster.py",
    "deploy/package/elign/jobs/client.py",
    "deploy/package/elign/jobs/connection.py",
    "deploy/package/elign/jobs/drain_request.py",
    "deploy/package/elign/jobs/errand.py",
    "deploy/package/elign/jobs/submission.py",
    "deploy/package/elign/launch.py",
    "deploy/package/elign/monitoring/ray_meter.py",
    "deploy/package/elign/profiling/readings.py",
    "learner/fed_grpo.py",
    "learner/fed_grpo_learner.py",
    "learner/local_runner.py",
    "learner/policy_module.py",
    "reward_server/front_watch.py",
}
FILES = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def test_the_top_level_holds_the_rooms_and_nothing_else() -> None:
    names = {line.split("/")[0] for line in _tracked()}
    assert {name for name in names if not name.startswith(".")} <= ROOMS | FILES


def test_every_room_is_linked_into_the_package() -> None:
    for room in ROOMS - {"deploy", "tests"}:
        link = ROOT / "deploy" / "package" / "elign" / room
        assert link.is_symlink()
        assert link.resolve() == ROOT / room


def _imports_ray(path: Path) -> bool:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return any(name.split(".")[0] == "ray" for name in names)


def test_only_the_thin_shells_import_ray() -> None:
    package = ROOT / "deploy" / "package" / "elign"
    files = [path for room in ROOMS - {"deploy", "tests"} for path in (ROOT / room).rglob("*.py")]
    files += [*package.glob("*.py")]
    folders = ("commands", "jobs", "monitoring", "profiling")
    files += [path for folder in folders for path in (package / folder).glob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if _imports_ray(path)}
    assert {name for name in found if not name.endswith("_actor.py")} <= SHELLS


def test_importing_all_of_common_loads_no_ray() -> None:
    names = [path.stem for path in (ROOT / "common").glob("*.py") if path.stem != "__init__"]
    script = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(f'elign.common.{{name}}')\n"
        "sys.exit('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
