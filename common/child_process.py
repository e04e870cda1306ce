"""What a child process does beside its work."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Let this process, one of multiprocessing's, end with the one that started it.

    A parent that was killed cannot end its children, and they would wait, or calculate for hours, for nobody.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
