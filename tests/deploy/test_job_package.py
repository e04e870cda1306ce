"""The Elign that a job gets: the cluster's own where it is this one, this one elsewhere, or an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from elign import __version__
from elign.common.errors import ClusterError
from elign.jobs import probe
from elign.jobs.connection import Connection
from elign.jobs.package import PACKAGE, ClusterPython, copy_package, must_upload

CLUSTER = Connection("http://head:8265", {})


def _found(**changes: object) -> ClusterPython:
    facts = {"version": "3.11.9", "elign": __version__, "same": True, "lacking": (), **changes}
    return ClusterPython(**facts)  # type: ignore[arg-type]


def test_only_a_cluster_without_this_very_elign_gets_it() -> None:
    assert not must_upload(CLUSTER, _found())
    assert must_upload(CLUSTER, _found(same=False))
    assert must_upload(CLUSTER, _found(elign=None, same=False))


def test_what_could_not_work_is_said_before_anything_is_sent() -> None:
    with pytest.raises(
        ClusterError, match=r"jobs at http://head:8265 run with Python 3\.10\.2, and here is 3\.11"
    ):
        must_upload(CLUSTER, _found(version="3.10.2"))
    with pytest.raises(ClusterError, match=r"lacks what Elign .* needs: rdkit>=2026\.3, ase>=3\.29; install"):
        must_upload(CLUSTER, _found(elign=None, same=False, lacking=("rdkit>=2026.3", "ase>=3.29")))


def test_the_probe_tells_what_there_is_without_elign_and_with_it(tmp_path: Path) -> None:
    copied = copy_package(tmp_path)
    assert not any(path.name == "__pycache__" or path.is_symlink() for path in copied.rglob("*"))
    requirements = json.dumps(["numpy>=2", "torch>=999", "surely-not-there"])

    def ask(path: str) -> dict[str, object]:
        command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[path, *sys.path]!r}; {RUN}"]
        done = subprocess.run(
            [*command, requirements], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    there = ask(str(tmp_path))
    assert there["elign"] == {"version": __version__, "fingerprint": probe.fingerprint(PACKAGE)}
    assert there["lacking"] == ["torch>=999", "surely-not-there"]
    (copied / "common" / "egnn.py").write_text("")
    changed = ask(str(tmp_path))["elign"]
    assert isinstance(changed, dict)
    assert changed["fingerprint"] != probe.fingerprint(PACKAGE)


RUN = f"import runpy; runpy.run_path({probe.__file__!r}, run_name='__main__')"
