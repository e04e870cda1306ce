"""A process that is killed, and whether the one it had started ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def kill_and_await_child(script: str, folder: Path) -> None:
    """Run ``script`` until it prints the number of its child, kill it, and wait until the child has ended.

    Waits without end: the test's time limit bounds it.
    """
    (folder / "parent.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, str(folder / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip() / "cmdline"
    assert child.read_bytes()
    parent.kill()
    parent.wait()
    while child.exists() and child.read_bytes():
        time.sleep(0.1)
