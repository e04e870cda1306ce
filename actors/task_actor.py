"""Independent tasks on Ray actors, answers as they come: for work of seconds to hours an item, such as DFT.

    with local_ray(workers):
        for index, answer in run_tasks(lambda: DftProcess(level, time_limit_s=600), structures, workers):
            ...

An actor may die: its item is given to another one, once, and has no answer if that one dies too.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError

from elign.common.errors import RolloutError

OBJECT_STORE_BYTES = 100_000_000
MAX_DEATHS = 2
"""As many actors may an item take down with it."""
MAX_FAILED_STARTS = 2
START = -1
"""Stands for an item while an actor starts."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class TaskActor(Generic[Item, Answer]):
    """Owns one task, built where it runs, and gives it one item at a time."""

    def __init__(self, make_task: Callable[[], Callable[[Item], Answer]]) -> None:
        self._task = make_task()

    def run(self, item: Item) -> Answer:
        return self._task(item)

    def ping(self) -> int:
        """The process id: proof of life."""
        return os.getpid()


def run_tasks(
    make_task: Callable[[], Callable[[Item], Answer]],
    items: Sequence[Item],
    workers: int,
    *,
    num_gpus: float = 0.0,
    on_start: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Answer | None]]:
    """(index, answer) of every item as it is done, on ``workers`` actors of one CPU each.

    None is the answer of an item with which actors died. num_gpus: of each actor. on_start: gets the process
    id of each actor that starts. What the task raises is raised here; leaving the loop ends the actors.
    Raises RolloutError when no actor can be started, as where a node lacks what the task imports.
    """
    remote = ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=0)(TaskActor)
    waiting, deaths = deque(range(len(items))), Counter[int]()
    idle: list[Any] = []
    running: dict[Any, tuple[int, Any]] = {}  # request -> index of its item (or START), actor
    try:
        while waiting or any(index != START for index, _ in running.values()):
            while waiting and idle:
                index, actor = waiting.popleft(), idle.pop()
                running[actor.run.remote(items[index])] = index, actor
            starting = sum(index == START for index, _ in running.values())
            for _ in range(min(len(waiting) - starting, workers - len(running))):
                actor = remote.remote(make_task)
                running[actor.ping.remote()] = START, actor
            done, _ = ray.wait(list(running), num_returns=1)
            index, actor = running.pop(done[0])
            try:
                answer = ray.get(done[0])
            except RayTaskError as error:
                raise (error.cause or error) from error
            except RayActorError as error:
                deaths[index] += 1
                if index == START and deaths[START] > MAX_FAILED_STARTS:
                    raise RolloutError(f"workers cannot be started: {error}") from error
                if index != START and deaths[index] < MAX_DEATHS:
                    waiting.append(index)
                elif index != START:
                    yield index, None
                continue
            idle.append(actor)
            if index != START:
                yield index, answer
            elif on_start is not None:
                on_start(answer)
    finally:
        for actor in [*idle, *(actor for _, actor in running.values())]:
            ray.kill(actor)


@contextmanager
def local_ray(workers: int) -> Iterator[None]:
    """Ray for the block: the one that is there, that of RAY_ADDRESS, or a local one that ends with it."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        options |= {
            "num_cpus": workers,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()
