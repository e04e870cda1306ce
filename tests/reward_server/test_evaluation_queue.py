"""The queue merges what arrives together and gives each caller exactly its own answer."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
import torch

from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.evaluation_queue import EvaluationQueue, QueueStats


class RecordingField:
    """Energy = sum of x over the atoms; forces = positions; a first atom at x < 0 is a failure."""

    name = "recording"
    elements = frozenset({6})

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self._seconds = seconds

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        self.batches.append(len(molecules))
        time.sleep(self._seconds)
        energy = molecules.positions[..., 0].sum(1).double()
        failures = tuple(
            Failure.SEVERAL_PIECES if x < 0 else None for x in molecules.positions[:, 0, 0].tolist()
        )
        return ForceFieldResult(energy, molecules.positions.clone(), energy, failures)


class BrokenField(RecordingField):
    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        raise ForceFieldError(f"cannot judge {len(molecules)} molecules")


def carbons(count: int, size: int, x: float) -> Molecules:
    """Different molecules of the same energy: all at ``x``, each elsewhere in y."""
    _serial.append(0)
    places = [np.full((size, 3), x) for _ in range(count)]
    for i, place in enumerate(places):
        place[:, 1] = len(_serial) + i / count
    return Molecules.from_lists([np.full(size, 6)] * count, places)


_serial: list[int] = []


def test_concurrent_queries_become_one_batch_and_answers_are_not_mixed_up() -> None:
    field = RecordingField()

    queries = [carbons(i + 1, i + 2, float(i)) for i in range(5)]

    async def ask() -> list[ForceFieldResult]:
        queue = EvaluationQueue(field)
        return await asyncio.gather(*(queue.evaluate(query) for query in queries))

    results = asyncio.run(ask())
    assert field.batches == [1 + 2 + 3 + 4 + 5]
    for i, result in enumerate(results):
        assert result.energy.tolist() == [float(i) * (i + 2)] * (i + 1)
        assert torch.equal(result.forces, queries[i].positions)
        assert len(result.failures) == i + 1


def test_queries_that_arrive_while_the_model_works_are_merged_next() -> None:
    field = RecordingField(seconds=0.1)

    async def ask() -> None:
        queue = EvaluationQueue(field, wait_s=0.0)
        first = asyncio.create_task(queue.evaluate(carbons(1, 2, 1.0)))
        await asyncio.sleep(0.03)
        await asyncio.gather(first, *(queue.evaluate(carbons(1, 2, 1.0)) for _ in range(6)))

    asyncio.run(ask())
    assert field.batches == [1, 6]


def test_batches_keep_the_budget_but_a_large_query_stays_whole() -> None:
    field = RecordingField()

    async def ask() -> None:
        queue = EvaluationQueue(field, max_atoms=20)
        await asyncio.gather(*(queue.evaluate(carbons(n, 2, 1.0)) for n in (4, 5, 4, 30)))

    asyncio.run(ask())
    assert field.batches == [9, 4, 30]


def test_a_query_that_must_be_alone_shares_no_batch() -> None:
    field = RecordingField()

    async def ask() -> None:
        queue = EvaluationQueue(field)
        alone = (False, False, True, True, False, False)
        await asyncio.gather(*(queue.evaluate(carbons(2, 2, 1.0), alone=a) for a in alone))

    asyncio.run(ask())
    assert field.batches == [4, 2, 2, 4]


def test_equal_molecules_are_evaluated_once_whoever_asks() -> None:
    field = RecordingField()
    first, second = carbons(2, 3, 1.0), carbons(1, 3, 2.0)

    async def ask() -> tuple[list[ForceFieldResult], QueueStats]:
        queue = EvaluationQueue(field)
        repeats = Molecules.cat([first, second, first])
        results = await asyncio.gather(queue.evaluate(repeats), queue.evaluate(second))
        return results, queue.stats()

    results, stats = asyncio.run(ask())
    assert field.batches == [3]
    assert (stats.molecules, stats.evaluated) == (6, 3)
    assert results[0].energy.tolist() == [3.0, 3.0, 6.0, 3.0, 3.0]
    assert torch.equal(results[0].forces, Molecules.cat([first, second, first]).positions)
    assert torch.equal(results[1].forces, second.positions)


def test_an_error_of_the_whole_batch_reaches_every_caller_and_the_queue_lives_on() -> None:
    async def ask() -> list[ForceFieldResult | BaseException]:
        queue = EvaluationQueue(BrokenField())
        queries = (queue.evaluate(carbons(1, 2, 1.0)) for _ in range(3))
        results = await asyncio.gather(*queries, return_exceptions=True)
        with pytest.raises(ForceFieldError, match="cannot judge 1"):
            await queue.evaluate(carbons(1, 2, 1.0))
        return results

    assert all(isinstance(result, ForceFieldError) for result in asyncio.run(ask()))


def test_statistics_count_queries_molecules_batches_and_failures() -> None:
    async def ask() -> object:
        queue = EvaluationQueue(RecordingField())
        await asyncio.gather(queue.evaluate(carbons(2, 2, -1.0)), queue.evaluate(carbons(1, 2, 1.0)))
        return queue.stats()

    stats = asyncio.run(ask())
    assert (stats.queries, stats.molecules, stats.batches) == (2, 3, 1)
    assert stats.failures == {"several_pieces": 2}
    assert stats.seconds > 0
