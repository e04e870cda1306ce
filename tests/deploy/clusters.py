"""Local clusters for tests, with a home, ports and a token of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from elign.jobs.local_cluster import (
    LocalCluster,
    Ports,
    _free_port,
    running_cluster,
    start_cluster,
    state_folder,
    stop_cluster,
)
from tests.deploy.conftest import PACKAGE

LIMIT_S = 900
SMALL = (
    "rollout.num_steps=10",
    "rollout.groups=2",
    "rollout.samples_per_group=8",
    "learner.skip_last=2",
    "run.checkpoint_every=1000",
)


@dataclass(frozen=True)
class Up:
    """A cluster that is up. home: of ``elign``, where its token is."""

    cluster: LocalCluster
    ports: Ports
    home: Path


def wait_for(what: Callable[[], Any]) -> Any:
    """What it gives, as soon as that is something."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(1.0)
    raise AssertionError("waited too long")


@contextmanager
def cluster_up(
    home: Path, *, num_cpus: int, prometheus: bool = False, has_package: bool = True
) -> Iterator[Up]:
    """A head of ``elign cluster up`` for the block. has_package: do its processes find this Elign?"""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        patch.setenv("ELIGN_HOME", str(home))
        patch.setenv("PYTHONPATH", str(PACKAGE) if has_package else "")
        port = _free_port() if prometheus and shutil.which("prometheus") else None
        ports = Ports(_free_port(), _free_port(), port)
        started = start_cluster(state_folder(), ports, num_cpus=num_cpus)
        try:
            yield Up(started, ports, home)
        finally:
            if running_cluster(state_folder()):
                stop_cluster(state_folder())


@contextmanager
def another_node(head: str, *, num_cpus: int, log: Path) -> Iterator[None]:
    """A second node of the local cluster for the block. head: address of Ray's head, "10.0.0.1:6379"."""
    # with a folder of its own: in a shared one, a node unpacks a job's files over those that another one uses
    folder = tempfile.mkdtemp(prefix="elign-ray-")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head}", "--block"]
    command += [f"--num-cpus={num_cpus}", f"--temp-dir={folder}"]
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state_folder() / "token"),
    }
    with log.open("wb") as output:
        node = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        node.terminate()
        node.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def python_without_elign(folder: Path) -> Path:
    """A Python that has all that this one has, but for Elign."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # of a folder in a .pth file, .pth files are not read: that is how an editable Elign would come
    (site / "shared.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    return folder / "bin" / "python"
