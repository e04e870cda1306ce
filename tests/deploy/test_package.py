"""Promises of the package: the wheel holds the rooms under ``elign`` alone; Ray workers import it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("actors", "common", "learner", "reward_server")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "No module named 'hatchling'" in done.stderr:
        pytest.skip("hatchling is not installed: pip install hatchling")
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def test_the_wheel_holds_real_files_under_elign_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    tops = {name.split("/")[0] for name in infos}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"elign"}
    for room in ROOMS:
        path = ROOT / room / "__init__.py"
        assert infos[f"elign/{room}/__init__.py"].file_size == path.stat().st_size
    assert not any(info.external_attr >> 16 & 0o170000 == 0o120000 for info in infos.values()), (
        "symbolic links"
    )
    for needed in ("py.typed", "common/presets/laptop.yaml", "common/assets/size_histograms.json"):
        assert f"elign/{needed}" in infos
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in infos)


def test_the_wheel_holds_every_tracked_file_of_the_rooms(wheel: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    present = [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]
    assert {f"elign/{name}" for name in present} <= names


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = (
        "import os, shutil, sys; from hatchling.build import build_sdist, build_wheel; out = sys.argv[1]\n"
        "shutil.unpack_archive(f'{out}/{build_sdist(out)}', out)\n"
        "os.chdir(next(e.path for e in os.scandir(out) if e.is_dir())); build_wheel(out)"
    )
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, check=True)
    with zipfile.ZipFile(wheel) as direct, zipfile.ZipFile(tmp_path / wheel.name) as rebuilt:
        assert sorted(direct.namelist()) == sorted(rebuilt.namelist())


def test_the_unpacked_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import elign.common.config_load as m; "
        "print(m.__file__); print(m.load_config('laptop', None, []).policy.checkpoint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(site)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place, checkpoint = done.stdout.split()
    assert Path(place).is_relative_to(site)
    assert checkpoint == "elign-qm9-small"


def test_ray_workers_import_elign_from_any_directory(tmp_path: Path) -> None:
    """The installed package reaches workers of a driver that was started in another folder."""
    script = textwrap.dedent("""
        import sys, ray
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])

        @ray.remote(num_cpus=1)
        def place():
            import elign.common.molecules, elign.learner
            return elign.common.molecules.__file__

        print(ray.get(place.remote(), timeout=120))
        ray.shutdown()
    """)
    if subprocess.run([sys.executable, "-c", "import elign"], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("elign is not installed in this environment: pip install -e .")
    # Socket paths are short by law, so Ray's folder cannot be pytest's long one.
    with tempfile.TemporaryDirectory(prefix="elign-ray-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", script, folder], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].endswith("elign/common/molecules.py")
