"""A process that keeps freed memory does not fetch the same pages again and again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from elign.common.process_memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(20):
        blocks = [torch.ones(1 << 20) for _ in range(8)]  # 4 MB each
        del blocks

work()
before = faults()
work()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives freed memory back at once")
def test_freed_blocks_are_used_again() -> None:
    # glibc's own thresholds move with what a process does: begin with fixed ones
    thresholds = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    environment = {**os.environ, **thresholds}
    plain, keep = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, way], text=True, env=environment))
        for way in ("plain", "keep")
    )
    assert keep < plain / 10
