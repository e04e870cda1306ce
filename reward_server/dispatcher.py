"""Hands queries of many callers to interchangeable replicas, each answered exactly once: asyncio, no Ray.

    dispatcher = Dispatcher(start_replica, replicas=2)
    await dispatcher.ready()
    answer = await dispatcher.ask(("score", query), caller="actor-3", size=80)

Queries wait here, in fair order, until the least loaded replica has room: a replica holds just enough to be
busy, so that a newcomer never waits behind all that somebody else has sent. A replica that is lost is
replaced, and what it had not answered is asked again elsewhere. Answers must therefore not depend on which
replica gives them, or on how often it was asked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from elign.common.errors import ForceFieldError
from elign.reward_server.fair_queue import FairQueue

MAX_TRIES = 3
_RESTART_PAUSE_S = 1.0
_QUERIES_AHEAD = 2  # one being evaluated, one ready


class ReplicaLost(Exception):  # noqa: N818  (a message between modules, not an error of the product)
    """A replica died; what it had not answered must be asked elsewhere."""


class Replica(Protocol):
    """One evaluator somewhere. appetite: molecules that keep it busy, those waiting at its door included."""

    name: str
    appetite: int

    async def answer(self, request: Any) -> Any:
        """Raises ReplicaLost when it died, and what is wrong with the request itself otherwise."""
        ...

    def end(self) -> None:
        """Give back what it holds; it may be hanging."""
        ...


@dataclass(frozen=True)
class DispatchStats:
    """Counts of queries since the dispatcher began.

    retried: asked again because a replica was lost. waiting: not with a replica yet. replaced: replicas
    started in place of lost ones. replicas: of those that are up, name -> molecules it holds.
    """

    asked: int = 0
    answered: int = 0
    failed: int = 0
    retried: int = 0
    waiting: int = 0
    replaced: int = 0
    replicas: dict[str, int] = field(default_factory=dict)


@dataclass
class _Query:
    request: Any
    size: int
    answer: asyncio.Future[Any]
    tries: int = 0


@dataclass
class _Slot:
    replica: Replica
    queries: int = 0
    load: int = 0
    heard: float = 0.0  # monotonic seconds of the last answer, or of the last query it got

    def has_room(self, size: int) -> bool:
        return self.queries < _QUERIES_AHEAD or self.load + size <= self.replica.appetite


class Dispatcher:
    """See the module; used from one event loop."""

    def __init__(
        self,
        start_replica: Callable[[], Awaitable[Replica]],
        *,
        replicas: int,
        timeout_s: float = math.inf,
        restart_pause_s: float = _RESTART_PAUSE_S,
    ) -> None:
        """start_replica: returns a replica that is ready. It raises ForceFieldError when one cannot be
        started, which is final, and ReplicaLost when one died while starting, which may pass.

        timeout_s: a replica that gives no answer for so long while it has queries is ended and replaced."""
        self._start_replica = start_replica
        self._number = replicas
        self._timeout_s = timeout_s
        self._restart_pause_s = restart_pause_s
        self._slots: list[_Slot] = []
        self._queue: FairQueue[_Query] = FairQueue()
        self._starting: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._refusal: ForceFieldError | None = None
        self._started = False
        self._draining = False
        self._counts = dict.fromkeys(("asked", "answered", "failed", "retried", "replaced"), 0)

    async def ready(self) -> None:
        """Wait until all replicas are up; raises ForceFieldError with the reason when one cannot be."""
        self._start_all()
        if self._starting:
            await asyncio.wait(set(self._starting))
        if self._refusal is not None:
            raise self._refusal

    async def ask(self, request: Any, *, caller: str, size: int) -> Any:
        """The answer of a replica; waits as long as it takes.

        size: molecules in it. Raises what the replica raised; ForceFieldError when there is no replica and
        will be none, when the query killed ``MAX_TRIES`` replicas, or while draining.
        """
        if self._draining:
            raise ForceFieldError("the reward server is shutting down and takes no more queries")
        if self._refusal is not None and not self._slots:
            raise self._refusal
        self._start_all()
        self._counts["asked"] += 1
        query = _Query(request, size, asyncio.get_running_loop().create_future())
        self._queue.push(query, caller=caller, size=size)
        self._pump()
        return await query.answer

    async def drain(self) -> None:
        """Take no more queries; returns when all that were taken are answered."""
        self._draining = True
        while busy := self._running | (self._starting if len(self._queue) else set()):
            await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)

    def stats(self) -> DispatchStats:
        """Counts so far."""
        holding = {slot.replica.name: slot.load for slot in self._slots}
        return DispatchStats(**self._counts, waiting=len(self._queue), replicas=holding)

    def replicas(self) -> list[Replica]:
        """Those that are up."""
        return [slot.replica for slot in self._slots]

    def _pump(self) -> None:
        """Give out what replicas have room for."""
        while len(self._queue) and self._slots:
            query = self._queue.peek()
            if query.answer.done():  # its caller has given up
                self._queue.pop()
                continue
            free = [slot for slot in self._slots if slot.has_room(query.size)]
            if not free:
                return
            self._queue.pop()
            slot = min(free, key=lambda slot: slot.load)
            slot.queries, slot.load, query.tries = slot.queries + 1, slot.load + query.size, query.tries + 1
            self._spawn(self._running, self._run(query, slot))

    async def _run(self, query: _Query, slot: _Slot) -> None:
        error, answer = await self._answer(query, slot)
        slot.queries, slot.load = slot.queries - 1, slot.load - query.size
        if isinstance(error, ReplicaLost):
            self._replace(slot)
            self._ask_again(query, error)
        else:
            self._settle(query, error, answer)
        self._pump()

    async def _answer(self, query: _Query, slot: _Slot) -> tuple[BaseException | None, Any]:
        """(what went wrong, or None; the answer). A replica that hangs is ended, and counts as lost."""
        asking = asyncio.ensure_future(slot.replica.answer(query.request))
        slot.heard = time.monotonic()
        while not asking.done() and (left := slot.heard + self._timeout_s - time.monotonic()) > 0:
            await asyncio.wait([asking], timeout=None if math.isinf(left) else left)
        if not asking.done():
            asking.cancel()
            slot.replica.end()
            return ReplicaLost(f"{slot.replica.name} gave no answer for {self._timeout_s:g} s"), None
        slot.heard = time.monotonic()
        error = asking.exception()
        return error, None if error else asking.result()

    def _ask_again(self, query: _Query, loss: ReplicaLost) -> None:
        if query.tries >= MAX_TRIES:
            self._settle(
                query,
                ForceFieldError(
                    f"{query.tries} replicas of the reward server were lost while they had a query of "
                    f"{query.size} molecules ({loss}); it may need more memory than there is"
                ),
            )
        elif self._refusal is not None and not self._slots and not self._starting:
            self._settle(query, self._refusal)
        else:
            self._counts["retried"] += 1
            self._queue.push_front(query)

    def _settle(self, query: _Query, error: BaseException | None, answer: Any = None) -> None:
        self._counts["answered" if error is None else "failed"] += 1
        if query.answer.done():
            return
        if error is None:
            query.answer.set_result(answer)
        else:
            query.answer.set_exception(error)

    def _replace(self, slot: _Slot) -> None:
        """Once for each lost replica, however many of its queries report the loss."""
        if slot in self._slots:
            self._slots.remove(slot)
            self._counts["replaced"] += 1
            self._start()

    def _start_all(self) -> None:
        if not self._started:
            self._started = True
            for _ in range(self._number):
                self._start()

    def _start(self) -> None:
        self._spawn(self._starting, self._bring_up())

    async def _bring_up(self) -> None:
        """A new replica takes part; one that dies at the start is tried again, one that refuses is not."""
        for attempt in range(1, MAX_TRIES + 1):
            try:
                self._slots.append(_Slot(await self._start_replica()))
                self._pump()
                return
            except ReplicaLost as error:
                refusal = ForceFieldError(f"the reward server died {attempt} times while starting: {error}")
                await asyncio.sleep(self._restart_pause_s)
            except ForceFieldError as error:
                refusal = error
                break
        self._refusal = refusal
        if not self._slots and len(self._starting) == 1:  # this was the last hope
            while len(self._queue):
                self._settle(self._queue.pop(), refusal)

    @staticmethod
    def _spawn(tasks: set[asyncio.Task[None]], work: Any) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
