"""Queries of many callers: each answered once, in fair order, by the least loaded replica, whatever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from elign.common.errors import ForceFieldError
from elign.reward_server.dispatcher import MAX_TRIES, Dispatcher, ReplicaLost
from elign.reward_server.fair_queue import FairQueue


class Echo:
    """Answers a number with itself after some turns of the loop; dies when told to."""

    def __init__(self, name: str, appetite: int = 8) -> None:
        self.name, self.appetite = name, appetite
        self.seen: list[int] = []
        self.holding = self.most_held = 0
        self.dead = self.ended = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: int) -> int:
        self.seen.append(request)
        self.holding += 1
        self.most_held = max(self.most_held, self.holding)
        await self.gate.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        self.holding -= 1
        if self.dead:
            raise ReplicaLost(self.name)
        if request < 0:
            raise ValueError(f"no answer to {request}")
        return request

    def end(self) -> None:
        self.ended = True


def starter(*replicas: Echo) -> Callable[[], Awaitable[Echo]]:
    """Starts these, one after the other; then there is none any more."""
    rest = list(replicas)

    async def start() -> Echo:
        await asyncio.sleep(0)
        if not rest:
            raise ForceFieldError("no more devices")
        return rest.pop(0)

    return start


def test_every_query_gets_its_own_answer_and_the_load_is_shared() -> None:
    async def go() -> tuple[list[int], list[Echo]]:
        replicas = [Echo("a"), Echo("b"), Echo("c")]
        dispatcher = Dispatcher(starter(*replicas), replicas=3)
        await dispatcher.ready()
        queries = (dispatcher.ask(i, caller=str(i % 5), size=1) for i in range(300))
        return await asyncio.gather(*queries), replicas

    answers, replicas = asyncio.run(go())
    assert answers == list(range(300))
    assert sum(len(replica.seen) for replica in replicas) == 300
    assert min(len(replica.seen) for replica in replicas) > 50
    assert max(replica.most_held for replica in replicas) <= 8


def test_a_lost_replica_is_replaced_once_and_its_queries_are_answered_elsewhere() -> None:
    async def go() -> tuple[list[int], Dispatcher, Counter[int]]:
        first, second, third = Echo("a"), Echo("b"), Echo("c")
        first.gate.clear()
        dispatcher = Dispatcher(starter(first, second, third), replicas=2)
        await dispatcher.ready()
        asking = asyncio.gather(*(dispatcher.ask(i, caller="x", size=1) for i in range(100)))
        while not first.holding:
            await asyncio.sleep(0)
        first.dead = True
        first.gate.set()
        answers = await asking
        return answers, dispatcher, Counter(first.seen + second.seen + third.seen)

    answers, dispatcher, seen = asyncio.run(go())
    stats = dispatcher.stats()
    assert answers == list(range(100))
    assert stats.replaced == 1
    assert stats.retried == sum(times - 1 for times in seen.values()) > 0
    assert (stats.asked, stats.answered, stats.failed, stats.waiting) == (100, 100, 0, 0)
    assert set(stats.replicas) == {"b", "c"}


def test_a_query_that_kills_replicas_is_given_up_and_the_others_are_answered() -> None:
    class Fragile(Echo):
        async def answer(self, request: int) -> int:
            if request == 13:
                raise ReplicaLost("killed")
            return await super().answer(request)

    async def go() -> tuple[list[int | BaseException], Dispatcher]:
        dispatcher = Dispatcher(starter(*(Fragile(str(i)) for i in range(9))), replicas=2)
        queries = (dispatcher.ask(i, caller="x", size=1) for i in range(40))
        return await asyncio.gather(*queries, return_exceptions=True), dispatcher

    answers, dispatcher = asyncio.run(go())
    assert [a for a in answers if not isinstance(a, BaseException)] == [i for i in range(40) if i != 13]
    assert isinstance(answers[13], ForceFieldError)
    assert "3 replicas" in str(answers[13])
    assert dispatcher.stats().replaced == MAX_TRIES


def test_a_replica_that_hangs_is_ended_and_replaced_and_its_queries_are_answered_elsewhere() -> None:
    async def go() -> tuple[list[int], list[Echo], Dispatcher]:
        replicas = [Echo("a"), Echo("b"), Echo("c")]
        replicas[0].gate.clear()
        dispatcher = Dispatcher(starter(*replicas), replicas=2, timeout_s=0.2)
        answers = await asyncio.gather(*(dispatcher.ask(i, caller="x", size=1) for i in range(20)))
        return answers, replicas, dispatcher

    answers, replicas, dispatcher = asyncio.run(go())
    assert answers == list(range(20))
    assert [replica.ended for replica in replicas] == [True, False, False]
    assert dispatcher.stats().replaced == 1
    assert set(dispatcher.stats().replicas) == {"b", "c"}


def test_a_query_that_hangs_every_replica_is_given_up() -> None:
    async def go() -> None:
        replicas = [Echo(str(i)) for i in range(9)]
        for replica in replicas:
            replica.gate.clear()
        await Dispatcher(starter(*replicas), replicas=1, timeout_s=0.01).ask(1, caller="x", size=7)

    with pytest.raises(ForceFieldError, match=r"3 replicas .* query of 7 molecules .*no answer for 0\.01 s"):
        asyncio.run(go())


def test_an_error_of_the_query_itself_is_its_callers_alone() -> None:
    async def go() -> list[int | BaseException]:
        dispatcher = Dispatcher(starter(Echo("a")), replicas=1)
        queries = (dispatcher.ask(i, caller="x", size=1) for i in (1, -1, 2))
        return await asyncio.gather(*queries, return_exceptions=True)

    first, second, third = asyncio.run(go())
    assert (first, third) == (1, 2)
    assert isinstance(second, ValueError)


def test_without_any_replica_left_every_caller_gets_the_reason() -> None:
    async def go() -> list[int | BaseException]:
        only = Echo("a")
        only.dead = True
        dispatcher = Dispatcher(starter(only), replicas=1)
        await dispatcher.ready()
        queries = (dispatcher.ask(i, caller="x", size=1) for i in range(20))
        answers = await asyncio.gather(*queries, return_exceptions=True)
        with pytest.raises(ForceFieldError, match="no more devices"):
            await dispatcher.ask(1, caller="x", size=1)
        return answers

    assert all("no more devices" in str(answer) for answer in asyncio.run(go()))


def test_a_replica_that_dies_while_starting_is_started_again_but_not_for_ever() -> None:
    async def go(deaths: int) -> int:
        async def start() -> Echo:
            nonlocal deaths
            deaths -= 1
            if deaths >= 0:
                raise ReplicaLost("at birth")
            return Echo("a")

        dispatcher = Dispatcher(start, replicas=1, restart_pause_s=0.0)
        return int(await dispatcher.ask(7, caller="x", size=1))

    assert asyncio.run(go(MAX_TRIES - 1)) == 7
    with pytest.raises(ForceFieldError, match="died 3 times"):
        asyncio.run(go(MAX_TRIES))


def test_a_query_larger_than_the_appetite_is_still_answered() -> None:
    async def go() -> list[int]:
        dispatcher = Dispatcher(starter(Echo("a", appetite=4)), replicas=1)
        return await asyncio.gather(*(dispatcher.ask(i, caller="x", size=100) for i in range(5)))

    assert asyncio.run(go()) == list(range(5))


def test_draining_answers_what_was_taken_and_takes_no_more() -> None:
    async def go() -> list[int]:
        dispatcher = Dispatcher(starter(Echo("a")), replicas=1)
        asking = asyncio.gather(*(dispatcher.ask(i, caller="x", size=1) for i in range(50)))
        await asyncio.sleep(0)
        draining = asyncio.create_task(dispatcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(ForceFieldError, match="shutting down"):
            await dispatcher.ask(1, caller="x", size=1)
        await draining
        return await asking

    assert asyncio.run(go()) == list(range(50))


def test_a_caller_who_gave_up_costs_no_evaluation() -> None:
    async def go() -> list[int]:
        replica = Echo("a")
        replica.gate.clear()
        dispatcher = Dispatcher(starter(replica), replicas=1)
        await dispatcher.ready()
        asking = [asyncio.create_task(dispatcher.ask(i, caller="x", size=8)) for i in range(4)]
        await asyncio.sleep(0)
        asking[2].cancel()
        replica.gate.set()
        await asyncio.gather(*asking, return_exceptions=True)
        return replica.seen

    assert asyncio.run(go()) == [0, 1, 3]


def test_one_who_floods_the_queue_does_not_starve_the_others() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push("flood", caller="a", size=10)
    for _ in range(5):
        queue.push("polite", caller="b", size=10)
    served = [queue.pop() for _ in range(12)]
    assert served.count("polite") == 5


def test_turns_are_shared_by_molecules_and_not_by_queries() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(50):
        queue.push("large", caller="a", size=100)
    for _ in range(500):
        queue.push("small", caller="b", size=10)
    served = Counter(queue.pop() for _ in range(110))
    assert served["large"] == pytest.approx(10, abs=1)
    assert served["small"] == pytest.approx(100, abs=1)


def test_one_callers_queries_keep_their_order_and_what_comes_back_goes_first() -> None:
    queue: FairQueue[int] = FairQueue()
    for i in range(5):
        queue.push(i, caller="a", size=3)
    first = queue.pop()
    queue.push_front(first)
    assert [queue.pop() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(queue) == 0
