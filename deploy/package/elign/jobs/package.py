"""The version of Elign that a run on a cluster works with: the very one that submits it.

A cluster that has this version uses its own. Any other gets this one along with the job, as a few megabytes
of files; what Elign needs beside itself (PyTorch, RDKit, ...) must be there.
"""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

import elign
from elign.common.errors import ClusterError
from elign.jobs import probe
from elign.jobs.connection import Connection
from elign.jobs.errand import run_script

PACKAGE = Path(elign.__file__).parent


@dataclass(frozen=True)
class ClusterPython:
    """The Python that jobs get.

    elign: its version there, None without one. same: is it this one, file by file?
    lacking: requirements of this Elign that are not met there.
    """

    version: str
    elign: str | None
    same: bool
    lacking: tuple[str, ...]


def look_at_python(connection: Connection, python: str | None = None) -> ClusterPython:
    """Ask the cluster, by a job of some seconds. Raises ClusterError where there is no such Python."""
    arguments = [json.dumps(_requirements())]
    printed = run_script(connection, Path(probe.__file__), arguments, python=python)
    answer = json.loads(printed.strip().splitlines()[-1])
    found = answer["elign"] or {"version": None, "fingerprint": None}
    return ClusterPython(
        version=answer["python"],
        elign=found["version"],
        same=found["fingerprint"] == probe.fingerprint(PACKAGE),
        lacking=tuple(answer["lacking"]),
    )


def must_upload(connection: Connection, found: ClusterPython) -> bool:
    """Does the cluster need this Elign? Raises ClusterError where it could not work with it."""
    here = platform.python_version()
    if found.version.split(".")[:2] != here.split(".")[:2]:
        raise ClusterError(
            f"jobs at {connection.address} run with Python {found.version}, and here is {here}; "
            "name another one of the cluster's with --python"
        )
    if found.same:
        return False
    if found.lacking:
        raise ClusterError(
            f"the Python of jobs at {connection.address} lacks what Elign {elign.__version__} needs: "
            f"{', '.join(found.lacking)}; install that there, or name another with --python"
        )
    return True


def copy_package(folder: Path) -> Path:
    """The files of this Elign, and nothing else, as a package in ``folder``."""
    return shutil.copytree(PACKAGE, folder / "elign", ignore=shutil.ignore_patterns("__pycache__"))


def _requirements() -> list[str]:
    """Those of Elign itself, not of its extras."""
    found = [Requirement(text) for text in requires("elign") or []]
    return [str(r) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]
