"""A query asked again gets the first answer: joined while it is being made, remembered for a while after."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch

from elign.common.molecules import Molecules
from elign.common.scoring import RewardQuery
from elign.reward_server.repeats import Repeats, query_digest


def test_equal_queries_have_one_digest_and_any_difference_another(molecules: Molecules) -> None:
    query = RewardQuery(1, molecules, (20, 10, 0), (0,), molecules)
    moved = Molecules(molecules.positions + 1e-6, molecules.atomic_numbers, molecules.node_mask)
    copied = Molecules(molecules.positions.clone(), molecules.atomic_numbers, molecules.node_mask)
    assert query_digest(replace(query, group_id=2, molecules=copied)) == query_digest(query)
    others = [
        replace(query, molecules=moved),
        replace(query, predicted=moved),
        replace(query, times=(30, 10, 0)),
        replace(query, potential_steps=(0, 1)),
        replace(query, molecules=replace(molecules, positions=molecules.positions.double())),
    ]
    assert len({query_digest(other) for other in [query, *others]}) == 6
    assert torch.equal(copied.positions, molecules.positions)


def test_one_answer_serves_all_who_ask_the_same_even_when_the_first_gives_up() -> None:
    asked = []

    async def go() -> list[int]:
        repeats: Repeats[int] = Repeats()

        async def ask() -> int:
            asked.append(1)
            await asyncio.sleep(0.01)
            return len(asked)

        first = asyncio.create_task(repeats.answer(b"key", ask))
        await asyncio.sleep(0)
        others = asyncio.gather(*(repeats.answer(b"key", ask) for _ in range(3)))
        await asyncio.sleep(0)
        first.cancel()
        answers = [*await others, await repeats.answer(b"key", ask)]
        assert repeats.joined == 4
        return answers

    assert asyncio.run(go()) == [1, 1, 1, 1]


def test_a_failure_is_not_remembered_and_old_answers_are_forgotten() -> None:
    calls: list[bytes] = []

    async def go() -> None:
        repeats: Repeats[bytes] = Repeats(keep=2)

        async def ask(key: bytes) -> bytes:
            calls.append(key)
            if len(calls) == 1:
                raise ValueError("not now")
            return key

        with pytest.raises(ValueError, match="not now"):
            await repeats.answer(b"a", lambda: ask(b"a"))
        for key in (b"a", b"b", b"c", b"a", b"c"):
            assert await repeats.answer(key, lambda key=key: ask(key)) == key

    asyncio.run(go())
    assert calls == [b"a", b"a", b"b", b"c", b"a"]
