"""Who is served next: callers take turns by the work they bring, not by how many queries they send.

Start-time fair queueing: each query gets a start tag, the later of the tag now being served and the end of
its caller's last query; the smallest tag is served first. A caller that floods the queue only pushes its own
tags into the future.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of many callers; first come, first served within one caller."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._now = 0.0
        self._ends: dict[str, float] = {}
        self._arrival = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, item: Item, *, caller: str, size: int) -> None:
        """size: the work it brings, in any unit common to all callers."""
        start = max(self._now, self._ends.get(caller, 0.0))
        self._ends[caller] = start + size
        heapq.heappush(self._heap, (start, next(self._arrival), item))

    def push_front(self, item: Item) -> None:
        """Before everything else: it has waited already."""
        heapq.heappush(self._heap, (-1.0, next(self._arrival), item))

    def peek(self) -> Item:
        """What ``pop`` would give."""
        return self._heap[0][2]

    def pop(self) -> Item:
        """The next item; raises IndexError when empty."""
        start, _, item = heapq.heappop(self._heap)
        self._now = max(self._now, start)
        if not self._heap:  # nobody is ahead of anybody any more
            self._ends.clear()
        return item
