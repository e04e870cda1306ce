"""How a process treats memory it has freed.

Networks allocate and free tensors of some megabytes thousands of times a second. By default glibc gives such
blocks back to the system each time, and every page of the next one costs a fault: up to half of the time of a
sampling process on a small machine.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MEBIBYTE = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 32 MiB (at most 1 GiB in all) for its next allocations.

    Called once at the start of a process that runs a network. Does nothing where the C library has no
    ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * _MEBIBYTE)
        mallopt(_TRIM_THRESHOLD, 1024 * _MEBIBYTE)
