"""What a call costs that does nothing: a bare Ray actor, the reward server's two hops, and Ray Serve.

    pip install 'ray[serve]'; python tests/benchmarks/serving_overhead.py

Prints Markdown. Each call carries a group's molecules there and its answer back. Without Ray Serve's packages
its rows are left out.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from elign.common.molecules import Molecules
from elign.common.scoring import RewardQuery
from elign.reward_server.dispatcher import Dispatcher
from elign.reward_server.replica_actor import ReplicaCard, ReplicaHandle

CALLS, ROUNDS = 200, 3
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Echo:
    """A replica without a force field."""

    async def score(self, query: RewardQuery) -> Any:
        return query.molecules.positions


class Front:
    """As ``RewardServer``: a dispatcher in front of a replica."""

    def __init__(self, echo: Any) -> None:
        async def start() -> ReplicaHandle:
            return ReplicaHandle(echo, ReplicaCard(os.getpid(), 256, None))

        self._dispatcher = Dispatcher(start, replicas=1)

    async def score(self, query: RewardQuery) -> Any:
        return await self._dispatcher.ask(("score", query), caller="", size=80)


def group() -> RewardQuery:
    """16 final molecules and 64 predicted ones, of 18 atoms."""
    rng = np.random.default_rng(0)
    final, predicted = (
        Molecules.from_lists([np.full(18, 6)] * n, list(rng.standard_normal((n, 18, 3)))) for n in (16, 64)
    )
    return RewardQuery(0, final, (40, 30, 20, 10, 0), (0, 1, 2, 3), predicted)


def milliseconds(ask: Callable[[RewardQuery], Any], callers: int) -> float:
    """Clock time a call, the best of the rounds."""
    query = group()

    def call() -> None:
        for _ in range(CALLS // callers):
            ask(query)

    call()
    best = float("inf")
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=call) for _ in range(callers)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - begin)
    return 1e3 * best / (CALLS // callers * callers)


def serve_handle() -> Any:
    """A deployment that batches, as a reward server on Ray Serve would."""
    from ray import serve

    @serve.deployment(max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0})
    class Batched:
        @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.0)
        async def score(self, queries: list[RewardQuery]) -> list[Any]:
            return [query.molecules.positions for query in queries]

    return serve.run(Batched.bind(), route_prefix=None)


def main() -> None:
    folder = tempfile.mkdtemp(prefix="e", dir="/tmp")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    options = {"num_cpus": 0, "max_concurrency": 1_000}
    echo = ray.remote(Echo).options(**options).remote()
    front = ray.remote(Front).options(**options).remote(echo)
    ways: dict[str, Callable[[RewardQuery], Any]] = {
        "a bare actor": lambda query: ray.get(echo.score.remote(query)),
        "the reward server: dispatcher and replica": lambda query: ray.get(front.score.remote(query)),
    }
    if importlib.util.find_spec("starlette"):
        handle = serve_handle()
        ways["Ray Serve, @serve.batch"] = lambda query: handle.score.remote(query).result()
    print("| way | 1 caller, ms a call | 16 callers, ms a call |\n|---|---:|---:|")
    for name, ask in ways.items():
        print(f"| {name} | {milliseconds(ask, 1):.1f} | {milliseconds(ask, 16):.1f} |", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
