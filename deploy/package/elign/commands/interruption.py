"""Ctrl-C in the long jobs: what was reached is on disk, and the user is told how to go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Turn a KeyboardInterrupt of the block into exit code 130 and a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; to go on where it was: {how}", file=sys.stderr)
        raise typer.Exit(130) from None
