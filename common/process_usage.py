"""What this process has used so far: memory at its highest, processor time, GPU memory."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class ProcessUsage:
    """resident_bytes, peak_resident_bytes: memory in use now and at most, shared pages included.

    cpu_seconds: processor time of all threads, user and system. gpu_peak_bytes: at most in tensors on this
    process's GPU; 0 where none was used.
    """

    pid: int
    resident_bytes: int
    peak_resident_bytes: int
    cpu_seconds: float
    gpu_peak_bytes: int


def process_usage() -> ProcessUsage:
    """Of the calling process."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    resident, peak = _resident_bytes()
    return ProcessUsage(
        pid=os.getpid(),
        resident_bytes=resident,
        peak_resident_bytes=peak,
        cpu_seconds=times.ru_utime + times.ru_stime,
        gpu_peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0,
    )


def _resident_bytes() -> tuple[int, int]:
    """Now and at most; the second twice where the system does not tell the first."""
    if _STATUS.exists():
        # not getrusage: there a child begins with the peak of the process that started it
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak
