"""Merges the queries of many callers into batches for one force field: asyncio, no Ray.

While a batch is being evaluated in the worker thread, queries pile up; when the thread is free, all of them
(up to a number of atoms) become the next batch, in which equal molecules are evaluated once. A query never
waits longer than ``wait_s`` for company. One that must have the same answer to the last bit, whoever else is
asking, is a batch ``alone``. The force field itself cuts a batch into what its device takes at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch

from elign.common.molecules import Molecules
from elign.common.scoring import ForceField, ForceFieldResult
from elign.reward_server.duplicates import expand_result, unique_molecules


@dataclass(frozen=True)
class QueueStats:
    """What a queue did since it began.

    molecules: asked about. evaluated: given to the force field, repeats left out. seconds: in the force
    field. failures: molecules by name of the failure.
    """

    queries: int = 0
    molecules: int = 0
    evaluated: int = 0
    batches: int = 0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: QueueStats) -> QueueStats:
        """Of two queues together."""
        return QueueStats(
            self.queries + other.queries,
            self.molecules + other.molecules,
            self.evaluated + other.evaluated,
            self.batches + other.batches,
            self.seconds + other.seconds,
            dict(Counter(self.failures) + Counter(other.failures)),
        )


@dataclass(frozen=True)
class _Query:
    molecules: Molecules
    alone: bool
    answer: asyncio.Future[ForceFieldResult]

    @property
    def num_atoms(self) -> int:
        return int(self.molecules.node_mask.sum())


class EvaluationQueue:
    """One force field, one worker thread, any number of concurrent callers."""

    def __init__(
        self, force_field: ForceField, *, wait_s: float = 0.003, max_atoms: int = 100_000, threads: int = 1
    ) -> None:
        """max_atoms: queries are merged up to this many; a larger single query is a batch of its own.

        threads: torch threads of the worker.
        """
        self._force_field = force_field
        self._wait_s = wait_s
        self._max_atoms = max_atoms
        self._waiting: list[_Query] = []
        self._drain: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, "force-field", torch.set_num_threads, (threads,))
        self._stats = QueueStats()

    async def evaluate(self, molecules: Molecules, *, alone: bool = False) -> ForceFieldResult:
        """As ``ForceField.evaluate``, together with whoever else is asking.

        alone: never in one batch with others, whose company would change the rounding. Raises what the force
        field raised, to every caller of the batch that failed as a whole.
        """
        future: asyncio.Future[ForceFieldResult] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Query(molecules, alone, future))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._evaluate_waiting())
        return await future

    def stats(self) -> QueueStats:
        """Counts so far."""
        return self._stats

    async def _evaluate_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._wait_s)
        while self._waiting:
            taken = self._take()
            merged = Molecules.cat([query.molecules for query in taken])
            evaluation = loop.run_in_executor(self._worker, self._evaluate_once, merged)
            await asyncio.wait([evaluation])
            error = evaluation.exception()
            if error is not None:
                _fail(taken, error)
                continue
            result, done = evaluation.result()
            self._stats += replace(done, queries=len(taken))
            _deliver(taken, result)

    def _evaluate_once(self, merged: Molecules) -> tuple[ForceFieldResult, QueueStats]:
        """In the worker thread: the answers, equal molecules evaluated once, and what that took."""
        begin = time.perf_counter()
        different, index = unique_molecules(merged)
        result = expand_result(self._force_field.evaluate(different), index)
        failures = Counter(failure.value for failure in result.failures if failure is not None)
        seconds = time.perf_counter() - begin
        return result, QueueStats(0, len(merged), len(different), 1, seconds, dict(failures))

    def _take(self) -> list[_Query]:
        total, end = 0, 0
        for query in self._waiting:
            total += query.num_atoms
            if end and (query.alone or total > self._max_atoms):
                break
            end += 1
            if query.alone:
                break
        taken, self._waiting = self._waiting[:end], self._waiting[end:]
        return taken


def split_result(result: ForceFieldResult, parts: list[Molecules]) -> list[ForceFieldResult]:
    """The answers of ``Molecules.cat(parts)``, one result a part, each padded as its part is."""
    results, start = [], 0
    for part in parts:
        end = start + len(part)
        forces = result.forces[start:end, : part.node_mask.shape[1]]
        results.append(
            ForceFieldResult(
                result.energy[start:end],
                forces,
                result.formation_energy[start:end],
                result.failures[start:end],
            )
        )
        start = end
    return results


def _deliver(taken: list[_Query], result: ForceFieldResult) -> None:
    for query, part in zip(taken, split_result(result, [query.molecules for query in taken]), strict=True):
        if not query.answer.done():  # its caller may have given up
            query.answer.set_result(part)


def _fail(taken: list[_Query], error: BaseException) -> None:
    for query in taken:
        if not query.answer.done():
            query.answer.set_exception(error)
