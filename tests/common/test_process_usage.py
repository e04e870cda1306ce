"""Promises of a process's usage: its own peak, which stays, and its own processor time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from elign.common.process_usage import process_usage

MEGABYTE = 1 << 20


def test_usage_is_that_of_this_process() -> None:
    before = process_usage()
    torch.randn(500, 500) @ torch.randn(500, 500)
    after = process_usage()
    assert before.pid == os.getpid()
    assert after.cpu_seconds >= before.cpu_seconds > 0
    assert after.peak_resident_bytes >= after.resident_bytes > 10 * MEGABYTE


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells only the peak")
def test_the_peak_stays_when_the_memory_is_given_back_and_is_not_inherited() -> None:
    script = (
        "from elign.common.process_usage import process_usage as usage\n"
        "before = usage(); block = bytearray(b'x' * (200 << 20)); del block; after = usage()\n"
        "print(before.peak_resident_bytes, after.peak_resident_bytes, after.resident_bytes)"
    )
    ballast = torch.ones(300 * MEGABYTE // 4)  # a child must not begin with this
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, peak, resident = map(int, done.stdout.split())
    assert peak - before > 150 * MEGABYTE
    assert resident < peak - 150 * MEGABYTE
    assert before < process_usage().peak_resident_bytes - ballast.numel() * 4 // 2
