"""What all processes of a run have used so far, asked from each: the part of a profile that talks to Ray."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from elign.common.process_usage import ProcessUsage, process_usage
from elign.launch import Assembly
from elign.reward_server.evaluation_queue import QueueStats


@dataclass(frozen=True)
class Readings:
    """driver: this process, which holds the learner too. replicas: of the reward server; served: their work.

    store_bytes: what lies in Ray's object store; store_bytes_created: what was ever put into it (objects
    below 100 kB travel without it).
    """

    driver: ProcessUsage
    actors: tuple[ProcessUsage, ...]
    replicas: tuple[ProcessUsage, ...]
    served: QueueStats
    store_bytes: int
    store_bytes_created: int

    @property
    def process_ids(self) -> list[int]:
        """Of the reward server's replicas and the actors; a restarted one has another."""
        return sorted(usage.pid for usage in (*self.replicas, *self.actors))


def read_all(parts: Assembly) -> Readings:
    """Ask every process; waits for those that are starting."""
    usages, stats = ray.get([parts.server.usages.remote(), parts.server.stats.remote()])
    store = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats
    return Readings(
        driver=process_usage(),
        actors=tuple(parts.pool.usages()),
        replicas=tuple(sorted(usages, key=lambda usage: usage.pid)),
        served=stats.replicas,
        store_bytes=int(store.object_store_bytes_used),
        store_bytes_created=int(store.cumulative_created_bytes),
    )
