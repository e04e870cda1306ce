"""Tasks on a real local Ray: all answers come, actors may die, errors are told, leaving ends the actors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from elign.actors.task_actor import run_tasks
from elign.common.errors import ForceFieldError, RolloutError


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    folder = Path("/tmp") / f"elign-ray-{os.getpid()}"  # short: Ray's sockets have a length limit
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    yield
    ray.shutdown()


def _make(task: Callable[[int], int]) -> Callable[[], Callable[[int], int]]:
    return lambda: task


def test_every_item_has_its_answer() -> None:
    assert dict(run_tasks(_make(lambda x: x * x), range(7), 2)) == {i: i * i for i in range(7)}
    assert dict(run_tasks(_make(lambda x: x), [], 2)) == {}


def test_an_item_whose_actor_died_is_done_by_another(tmp_path: Path) -> None:
    mark = tmp_path / "died"

    def task(item: int) -> int:
        if item == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert dict(run_tasks(_make(task), range(4), 2)) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_an_item_that_ends_every_actor_has_no_answer_and_the_others_do() -> None:
    def task(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert dict(run_tasks(_make(task), range(4), 2)) == {0: 0, 1: 1, 2: None, 3: 3}


def test_what_a_task_raises_is_raised_here() -> None:
    def task(item: int) -> int:
        raise ForceFieldError(f"cannot work on {item}")

    with pytest.raises(ForceFieldError, match="cannot work on 5"):
        dict(run_tasks(_make(task), [5], 1))


def test_workers_that_cannot_be_built_are_told_and_not_taken_for_failed_items() -> None:
    def make() -> Callable[[int], int]:
        raise ModuleNotFoundError("no module named something")

    with pytest.raises(RolloutError, match="cannot be started"):
        dict(run_tasks(make, range(3), 2))


def test_leaving_the_loop_ends_the_actors() -> None:
    started: list[int] = []
    answers = run_tasks(_make(lambda x: x), range(50), 2, on_start=started.append)
    next(answers)
    answers.close()
    assert started
    for pid in started:
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            pass  # Ray ends it soon; the test's own time limit is the bound
