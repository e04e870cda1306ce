"""Where a call of the reward server spends its time: clock readings in every process it passes through.

    python -m tests.benchmarks.serving_profile --qm9 qm9.npz [--calls 200]

One caller asks about 80 molecules, a group of 16 with four potential evaluations, again and again; rounds
alternate with the same batches in this process, and with an empty call of an actor that does nothing. All
processes read the machine's one monotonic clock. Prints Markdown, medians over the calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from elign.common.config import RewardSettings
from elign.common.devices import cpu_name
from elign.common.molecule_io import read_molecules
from elign.common.molecules import Molecules
from elign.common.scoring import ForceField, ForceFieldResult
from elign.reward_server import replica_actor, reward_actor
from elign.reward_server.registry import load_force_field
from tests.benchmarks.reward_server import FORCE_FIELD, QUERY, small_ray

# Ray's workers cannot import the benchmarks
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

STAGES = (
    "caller to server",
    "in the server, to the dispatcher and on",
    "server to replica",
    "replica: to the worker thread",
    "force field",
    "replica: back from the worker thread",
    "replica to server",
    "server to caller",
)


class Timed:
    """A mixin that notes when ``evaluate`` begins and ends."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.marks: list[tuple[float, float]] = []

    async def evaluate(self, *given: Any, **named: Any) -> ForceFieldResult:
        begin = time.monotonic()
        result: ForceFieldResult = await super().evaluate(*given, **named)  # type: ignore[misc]
        self.marks.append((begin, time.monotonic()))
        return result


class TimedReplica(Timed, replica_actor.RewardReplica):
    """The force field, called in the worker thread, is timed too."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.inside: list[tuple[float, float]] = []
        self._queue._evaluate_once = noting(self._queue._evaluate_once, self.inside)  # type: ignore[method-assign]

    async def all_marks(self) -> list[list[tuple[float, float]]]:
        return [self.marks, self.inside]


class TimedServer(Timed, reward_actor.RewardServer):
    """Starts replicas that are timed, and notes when it hands a query on."""

    def __init__(self, *given: Any) -> None:
        replica_actor.RewardReplica = TimedReplica  # type: ignore
        super().__init__(*given)
        self.handed: list[tuple[float, float]] = []

    async def evaluate(self, *given: Any, **named: Any) -> ForceFieldResult:
        replica = next(iter(self._dispatcher.replicas()))
        if not self.handed:
            replica.answer = noting(replica.answer, self.handed)  # type: ignore[method-assign]
        return await super().evaluate(*given, **named)

    async def all_marks(self) -> tuple[Any, ...]:
        replica: Any = next(iter(self._dispatcher.replicas()))
        return (self.marks, self.handed, *await replica._actor.all_marks.remote())


def noting(work: Callable[..., Any], into: list[tuple[float, float]]) -> Callable[..., Any]:
    """``work``, with when each call of it began and returned; a coroutine function returns at once."""

    def timed(*given: Any) -> Any:
        begin = time.monotonic()
        result = work(*given)
        into.append((begin, time.monotonic()))
        return result

    return timed


def stages(caller: np.ndarray, marks: tuple[Any, ...]) -> np.ndarray:
    """[calls, stages] seconds; caller: [calls, 2]."""
    server, handed, replica, inside = (np.array(some)[-len(caller) :] for some in marks)
    times = np.stack(
        [
            caller[:, 0],
            server[:, 0],
            handed[:, 0],
            replica[:, 0],
            inside[:, 0],
            inside[:, 1],
            replica[:, 1],
            server[:, 1],
            caller[:, 1],
        ],
        axis=1,
    )
    return np.diff(times, axis=1)


class Nothing:
    """An actor of the server's kind."""

    async def nothing(self) -> None:
        pass


def measure(field: ForceField, queries: list[Molecules], calls: int) -> tuple[np.ndarray, ...]:
    """Seconds of each call: in this process; empty, to one actor; through Ray, by stage."""
    reward_actor.RewardServer = TimedServer  # type: ignore
    settings = RewardSettings(force_field=FORCE_FIELD, device="cpu")
    server = reward_actor.start_reward_server(settings, "qm9")
    nobody = ray.remote(Nothing).options(num_cpus=0, max_concurrency=1_000).remote()
    in_process, empty, caller = [], [], []
    for call in range(-10, calls):
        query = queries[call % len(queries)]
        begin = time.monotonic()
        ray.get(server.evaluate.remote(query))
        end = time.monotonic()
        field.evaluate(query)
        evaluated = time.monotonic()
        ray.get(nobody.nothing.remote())
        if call >= 0:
            caller.append((begin, end))
            in_process.append(evaluated - end)
            empty.append(time.monotonic() - evaluated)
    marks = ray.get(server.all_marks.remote())
    reward_actor.stop_reward_server(server)
    return np.array(in_process), np.array(empty), stages(np.array(caller), marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--qm9", type=Path, required=True, help="molecules of QM9, .npz in the usual layout")
    parser.add_argument("--calls", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = read_molecules(given.qm9)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    queries = [data[order[i : i + QUERY]] for i in range(0, 5 * QUERY, QUERY)]
    field = load_force_field(FORCE_FIELD)
    with small_ray():
        in_process, empty, through = measure(field, queries, given.calls)
    print(f"{cpu_name()}, {given.calls} calls of {QUERY} molecules\n")
    print("| stage of a call | ms |\n|---|---:|")
    for stage, milliseconds in zip(STAGES, 1e3 * np.median(through, axis=0), strict=True):
        print(f"| {stage} | {milliseconds:.2f} |")
    whole = 1e3 * float(np.median(through.sum(1)))
    print(f"| together | {whole:.2f} |\n| the same in this process | {1e3 * np.median(in_process):.2f} |")
    print(f"| an empty call of one actor | {1e3 * np.median(empty):.2f} |")


if __name__ == "__main__":
    main()
