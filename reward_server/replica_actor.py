"""One replica of the reward server: a Ray actor that owns a force field and its device.

Queries that arrive together are evaluated together (``EvaluationQueue``), but for groups on a CPU: a group
fills the CPU's best batch by itself, and alone its rewards do not depend on who else is asking, so that one
seed gives one run, whichever replica answers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, RuntimeEnvSetupError
from ray.runtime_env import RuntimeEnv
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from elign.common.chemistry import read_reference_smiles
from elign.common.config import RewardSettings
from elign.common.data import load_dataset
from elign.common.devices import resolve_device
from elign.common.errors import ElignError, ForceFieldError
from elign.common.molecules import Molecules
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import ProcessUsage, process_usage
from elign.common.scoring import ForceField, ForceFieldResult, RewardAnswer, RewardQuery
from elign.reward_server.composition_reference import AboveComposition
from elign.reward_server.dispatcher import ReplicaLost
from elign.reward_server.evaluation_queue import EvaluationQueue, QueueStats, split_result
from elign.reward_server.registry import load_force_field
from elign.reward_server.rewards import compute_rewards

_WARM_UP_RUNS = 2  # TorchScript optimizes itself during the first two
_APPETITE = {"cpu": 256, "cuda": 16_384}  # molecules: about a second of work, or many merged queries
_WAIT_S = {"cpu": 0.0, "cuda": 0.003}  # for company: a CPU gains next to nothing from a fuller batch
_CALLS_AT_ONCE = 1_000


@dataclass(frozen=True)
class ReplicaCard:
    """What a replica says of itself. refusal: why it cannot work, None when it can."""

    process_id: int
    appetite: int
    refusal: str | None


class RewardReplica:
    """The actor's class; plain, so that it can also be used without Ray."""

    def __init__(self, settings: RewardSettings, dataset: str) -> None:
        """dataset: "qm9" or "geom", whose bond tables decide on stability."""
        self._settings = settings
        self._dataset = dataset
        threads = max(1, int(settings.num_cpus))
        torch.set_num_threads(threads)
        keep_freed_memory()
        self._refusal: str | None = None
        self._device = "cpu"
        self._known_smiles: frozenset[str] = frozenset()
        # Not raised: Ray buries what a constructor raises in pages of its own.
        try:
            self._device = resolve_device(settings.device).type
            self._queue = EvaluationQueue(_load(settings), wait_s=_WAIT_S[self._device], threads=threads)
            if settings.known_penalty > 0 and settings.known_molecules is not None:
                self._known_smiles = read_reference_smiles(settings.known_molecules)
        except ElignError as error:
            self._refusal = str(error)

    async def card(self) -> ReplicaCard:
        """Answered as soon as the force field is loaded, or could not be."""
        return ReplicaCard(os.getpid(), _APPETITE[self._device], self._refusal)

    async def score(self, query: RewardQuery) -> RewardAnswer:
        """The rewards of one group. Molecules that fail are masked in the answer."""
        molecules = Molecules.cat([query.molecules, query.predicted])
        result = await self._queue.evaluate(molecules, alone=self._device == "cpu")
        final, predicted = split_result(result, [query.molecules, query.predicted])
        return compute_rewards(query, final, predicted, self._settings, self._dataset, self._known_smiles)

    async def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies and forces alone."""
        return await self._queue.evaluate(molecules)

    async def stats(self) -> QueueStats:
        """Counts since this replica started."""
        return self._queue.stats()

    async def usage(self) -> ProcessUsage:
        """What this process has used so far."""
        return process_usage()


class ReplicaHandle:
    """A replica as the dispatcher knows it: Ray's ways of saying that it is gone become ``ReplicaLost``."""

    def __init__(self, actor: Any, card: ReplicaCard) -> None:
        self._actor = actor
        self.name = f"process {card.process_id}"
        self.appetite = card.appetite

    async def answer(self, request: tuple[str, Any]) -> Any:
        """request: (method, argument)."""
        method, argument = request
        try:
            return await _result_of(getattr(self._actor, method).remote(argument))
        except ReplicaLost:
            self.end()  # where it is only out of reach, it must not keep its device
            raise

    def end(self) -> None:
        ray.kill(self._actor)

    async def stats(self) -> QueueStats:
        stats: QueueStats = await _result_of(self._actor.stats.remote())
        return stats

    async def usage(self) -> ProcessUsage:
        usage: ProcessUsage = await _result_of(self._actor.usage.remote())
        return usage


async def start_replica(settings: RewardSettings, dataset: str) -> ReplicaHandle:
    """A replica with its force field loaded; it ends with the process that started it.

    Raises ForceFieldError with the reason when it cannot be loaded, ReplicaLost when it died on the way.
    """
    options: dict[str, Any] = {
        "num_cpus": settings.num_cpus,
        "num_gpus": settings.num_gpus,
        "max_restarts": 0,  # the dispatcher replaces it, and sends what was unanswered elsewhere meanwhile
        "max_task_retries": 0,
        "max_concurrency": _CALLS_AT_ONCE,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=None),
    }
    try:
        if settings.runtime_env:
            options["runtime_env"] = RuntimeEnv(**settings.runtime_env)
        actor = ray.remote(RewardReplica).options(**options).remote(settings, dataset)
        card: ReplicaCard = await _result_of(actor.card.remote())
    except (TypeError, ValueError, RuntimeEnvSetupError) as error:
        raise ForceFieldError(f"reward.runtime_env {settings.runtime_env} is no use: {error}") from error
    if card.refusal is not None:
        ray.kill(actor)
        raise ForceFieldError(card.refusal)
    return ReplicaHandle(actor, card)


async def _result_of(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        raise error.cause from None
    except (RayActorError, ObjectLostError) as error:
        reason = str(error).strip().splitlines()[-1].strip()  # what comes before is Ray's own story
        raise ReplicaLost(f"{type(error).__name__}: {reason}") from error


def _load(settings: RewardSettings) -> ForceField:
    force_field = load_force_field(
        settings.force_field,
        settings.device,
        settings.dtype,
        min_distance=settings.min_distance,
        force_limit=settings.force_limit,
        options=settings.force_field_options,
    )
    _warm_up(force_field)
    if settings.composition_data is None:
        return force_field
    return AboveComposition(force_field, load_dataset(settings.composition_data).molecules)


def _warm_up(force_field: ForceField) -> None:
    hydrogen = Molecules(
        torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]]),
        torch.ones(1, 2, dtype=torch.int64),
        torch.ones(1, 2, dtype=torch.bool),
    )
    for _ in range(_WARM_UP_RUNS):
        force_field.evaluate(hydrogen)
