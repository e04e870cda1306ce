"""DFT of sets of molecules, spread over Ray workers, each answer kept in a table as it comes.

run_dft({"trained": molecules}, settings, DftTable(folder / "dft.parquet"), progress)["trained"].energy
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from elign.actors.task_actor import local_ray, run_tasks
from elign.common.molecules import Molecules
from elign.common.progress import Progress
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.dft import DftAnswer, pyscf_version, runs_on_gpu
from elign.reward_server.dft_batch import DftBatch, DftSettings
from elign.reward_server.dft_process import DftProcess
from elign.reward_server.dft_table import DftRecord, DftTable
from elign.reward_server.one_by_one import Structure

Timed = tuple[DftAnswer | Failure, float]


def run_dft(
    sets: Mapping[str, Molecules], settings: DftSettings, table: DftTable, progress: Progress
) -> dict[str, ForceFieldResult]:
    """Answers for the first ``settings.number`` molecules of each set; what the table has is not repeated.

    Raises ForceFieldError when PySCF is missing or the level does not work at all.
    """
    version = pyscf_version()
    batches = {
        name: DftBatch(molecules[: settings.number], settings.level, max_atoms=settings.max_atoms)
        for name, molecules in sets.items()
    }
    missing = _missing(batches, settings, table)
    if missing:
        with local_ray(settings.workers):
            work = _task(settings)
            gpus = 1.0 / settings.workers if runs_on_gpu() else 0.0
            answers = run_tasks(work, missing, min(settings.workers, len(missing)), num_gpus=gpus)
            for done, (index, timed) in enumerate(answers, start=1):
                # an item that ended two actors has no answer: memory, most likely
                answer, seconds = timed or (Failure.WORKER_DIED, 0.0)
                table.add(settings.level, missing[index], _record(answer, seconds, version))
                progress(done, len(missing))
    return {name: batch.result(table) for name, batch in batches.items()}


def _missing(batches: Mapping[str, DftBatch], settings: DftSettings, table: DftTable) -> list[Structure]:
    """Each structure once, the sets in turns, so that an interrupted run has as many of each."""
    queues = [list(b.missing(table, time_limit_s=settings.time_limit_s)) for b in batches.values()]
    found: dict[bytes, Structure] = {}
    for place in range(max(map(len, queues), default=0)):
        for queue in queues:
            if place < len(queue):
                numbers, positions = queue[place]
                found.setdefault(numbers.tobytes() + positions.tobytes(), (numbers, positions))
    return list(found.values())


def _task(settings: DftSettings) -> Callable[[], Callable[[Structure], Timed]]:
    """Built in the actor: a process for DFT, and a clock beside it."""

    def make() -> Callable[[Structure], Timed]:
        calculate = DftProcess(settings.level, time_limit_s=settings.time_limit_s)

        def timed(structure: Structure) -> Timed:
            started = time.monotonic()
            answer = calculate(structure)
            return answer, time.monotonic() - started

        return timed

    return make


def _record(answer: DftAnswer | Failure, seconds: float, version: str) -> DftRecord:
    if isinstance(answer, Failure):
        return DftRecord(None, None, str(answer), None, seconds, version)
    forces = answer.forces.reshape(-1).tolist()
    return DftRecord(answer.energy, forces, None, answer.solver, seconds, version)
