"""A query that is asked again gets the answer of the first time: while that is being made, and a while after.

A rollout actor that died after asking is replaced by one that samples the same group, to the last bit, and
asks the same. The latest answers are kept; that changes no result, only who computes it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from elign.common.scoring import RewardQuery

Answer = TypeVar("Answer")


def query_digest(query: RewardQuery) -> bytes:
    """Of everything that an answer depends on, so not of the group's number."""
    digest = hashlib.sha256(repr((query.times, query.potential_steps)).encode())
    for molecules in (query.molecules, query.predicted):
        for array in (molecules.positions, molecules.atomic_numbers, molecules.node_mask):
            digest.update(repr((tuple(array.shape), array.dtype)).encode())
            digest.update(array.cpu().contiguous().numpy().tobytes())
    return digest.digest()


class Repeats(Generic[Answer]):
    """The answers in the making and the ``keep`` latest; used from one event loop."""

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._answers: OrderedDict[bytes, asyncio.Future[Answer]] = OrderedDict()
        self.joined = 0
        """How many queries were answered without asking."""

    async def answer(self, key: bytes, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What ``ask`` returns, or returned when it was asked for this key before. A failure is not kept."""
        known = self._answers.get(key)
        if known is not None:
            self.joined += 1
            return await asyncio.shield(known)
        asking = self._answers[key] = asyncio.ensure_future(ask())
        asking.add_done_callback(lambda done: self._finish(key, done))
        # shielded: another caller may be waiting for the same answer when this one gives up
        return await asyncio.shield(asking)

    def _finish(self, key: bytes, done: asyncio.Future[Answer]) -> None:
        if done.cancelled() or done.exception() is not None:
            del self._answers[key]
            return
        self._answers.move_to_end(key)
        finished = [k for k, answer in self._answers.items() if answer.done()]
        for old in finished[: -self._keep]:
            del self._answers[old]
