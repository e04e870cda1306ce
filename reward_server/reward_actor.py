"""The reward server: a Ray actor that owns a force field and its device and answers all rollout actors.

    server = start_reward_server(config.reward, dataset="qm9")
    answer = await server.score.remote(query)

Queries that arrive together are evaluated together (``EvaluationQueue``), but for groups on a CPU: a group
fills the CPU's best batch by itself, and alone its rewards do not depend on who else is asking, so that one
seed gives one run. A query may be asked again at any time: it changes nothing here, so Ray may restart the
actor and retry what was in flight.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from elign.common.config import RewardSettings
from elign.common.devices import resolve_device
from elign.common.errors import ElignError, ForceFieldError
from elign.common.molecules import Molecules
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import ProcessUsage, process_usage
from elign.common.scoring import ForceField, ForceFieldResult, RewardAnswer, RewardQuery
from elign.reward_server.evaluation_queue import EvaluationQueue, QueueStats, split_result
from elign.reward_server.registry import load_force_field
from elign.reward_server.rewards import compute_rewards

_WARM_UP_RUNS = 2  # TorchScript optimizes itself during the first two


class RewardServer:
    """The actor's class; plain, so that it can also be used without Ray."""

    def __init__(self, settings: RewardSettings, dataset: str) -> None:
        """dataset: "qm9" or "geom", whose bond tables decide on stability. See ``refusal``."""
        self._settings = settings
        self._dataset = dataset
        self._threads = max(1, int(settings.num_cpus))
        torch.set_num_threads(self._threads)
        keep_freed_memory()
        self._refusal: str | None = None
        # Not raised: Ray buries what a constructor raises in pages of its own.
        try:
            self._groups_alone = resolve_device(settings.device).type == "cpu"
            self._queue = EvaluationQueue(_load(settings), threads=self._threads)
        except ElignError as error:
            self._refusal = str(error)

    async def refusal(self) -> str | None:
        """Why the force field cannot be loaded; None when it is loaded."""
        return self._refusal

    async def score(self, query: RewardQuery) -> RewardAnswer:
        """The rewards of one group. Molecules that fail are masked in the answer."""
        molecules = Molecules.cat([query.molecules, query.predicted])
        result = await self._queue.evaluate(molecules, alone=self._groups_alone)
        final, predicted = split_result(result, [query.molecules, query.predicted])
        return compute_rewards(query, final, predicted, self._settings, self._dataset)

    async def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies and forces alone."""
        return await self._queue.evaluate(molecules)

    async def stats(self) -> QueueStats:
        """Counts since this actor (re)started."""
        return self._queue.stats()

    async def usage(self) -> ProcessUsage:
        """What this process has used so far."""
        return process_usage()


def start_reward_server(settings: RewardSettings, dataset: str) -> Any:
    """A handle to a running ``RewardServer``; returns when its force field is loaded.

    Raises ForceFieldError when it cannot be loaded.
    """
    actor_class = ray.remote(RewardServer).options(
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=256,
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None),
    )
    server = actor_class.remote(settings, dataset)
    try:
        refusal = ray.get(server.refusal.remote())
    except RayActorError as error:
        raise ForceFieldError(f"the reward server died while loading {settings.force_field!r}") from error
    if refusal is not None:
        ray.kill(server)
        raise ForceFieldError(refusal)
    return server


def _load(settings: RewardSettings) -> ForceField:
    force_field = load_force_field(
        settings.force_field,
        settings.device,
        settings.dtype,
        min_distance=settings.min_distance,
        force_limit=settings.force_limit,
    )
    _warm_up(force_field)
    return force_field


def _warm_up(force_field: ForceField) -> None:
    hydrogen = Molecules(
        torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]]),
        torch.ones(1, 2, dtype=torch.int64),
        torch.ones(1, 2, dtype=torch.bool),
    )
    for _ in range(_WARM_UP_RUNS):
        force_field.evaluate(hydrogen)
