"""Progress of a long job: a bar on a terminal, plain lines at intervals elsewhere; always on stderr, so that
standard output stays machine-readable.

    with show_progress("sampling") as progress:
        sample_molecules(policy, sizes, num_steps=50, seed=0, progress=progress)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO


class Progress(Protocol):
    """``progress(done, total, text)``: done of total units; text: figures worth showing beside."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


@contextmanager
def show_progress(
    label: str,
    *,
    stream: TextIO | None = None,
    interval_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """A display that lives as long as the block; interval_s: least time between two plain lines.

    The first and the last unit always get a line.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainProgress(label, stream, interval_s, clock)
        return
    # Imported here: commands that show nothing should start quickly.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(label, total=None, figures="")

        def update(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, figures=text)

        yield update


class PlainProgress:
    """Lines such as ``sampling 32/100 (12 s)``."""

    def __init__(self, label: str, stream: TextIO, interval_s: float, clock: Callable[[], float]) -> None:
        self._label, self._stream, self._interval_s, self._clock = label, stream, interval_s, clock
        self._start = clock()
        self._last_line: float | None = None

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = self._clock()
        recent = self._last_line is not None and now - self._last_line < self._interval_s
        if recent and done < total:
            return
        self._last_line = now
        figures = f" {text}" if text else ""
        print(
            f"{self._label} {done}/{total} ({now - self._start:.0f} s){figures}",
            file=self._stream,
            flush=True,
        )
