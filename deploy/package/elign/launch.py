"""Composition of a post-training run: Ray, reward server, rollout pool and FED-GRPO algorithm put together.

    from elign.common.config_load import load_config
    train(load_config("laptop", None, []), Path("runs/first"))

The rooms do not know each other; here they get their handles.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import torch
from torch import Tensor

from elign.actors.pool import RolloutPool
from elign.common.checkpoint import load_policy
from elign.common.config import TrainConfig
from elign.common.errors import ConfigError, LearnerError, RolloutError, StorageError
from elign.common.meter import Meter, NoMeter
from elign.common.molecule_io import write_molecules
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy
from elign.common.pool_status import PoolControl
from elign.common.prompts import Prompts
from elign.common.run_control import RunControl
from elign.common.sampling import branch_index, sample_molecules
from elign.learner.fed_grpo import FedGrpo, FedGrpoConfig
from elign.learner.gaming_watch import ALARM_PREFIX, alarm_figures, run_alarms, watch_figures
from elign.learner.report import write_report
from elign.learner.run_directory import RunDirectory
from elign.learner.run_metrics import Row
from elign.monitoring.ray_meter import RayMeter
from elign.monitoring.run_exporter import RunExporter
from elign.monitoring.steady_meter import SteadyMeter
from elign.reward_server.front_watch import watched_front
from elign.reward_server.registry import check_force_field
from elign.reward_server.reward_actor import start_reward_server
from elign.reward_server.xtb import Gfn2ForceField
from elign.samples import draw_sizes

OBJECT_STORE_BYTES = 300_000_000
NUM_COMPARED = 64
REPORT_EVERY = 5
"""Iterations between two versions of ``report.html``."""
MAX_LEARNER_LOSSES = 3
"""After so many, one that happens before the next checkpoint ends the run."""
# what a run is compared on is drawn with another seed than what it is trained on
COMPARISON_SEED_OFFSET = 1_000_003
log = logging.getLogger("elign")


def train(
    config: TrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    on_iteration: Callable[[dict[str, float]], None] | None = None,
    on_saved: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Post-train a policy; everything it makes is in ``run_dir`` (see ``RunDirectory``). Returns a summary.

    resume: go on from the last checkpoint in ``run_dir``, exactly as if nothing had happened. on_iteration:
    gets each iteration's figures. on_saved: called when the files in ``run_dir`` are whole: before the first
    iteration, and after each. SIGINT and SIGTERM end the run at the last completed iteration, save it and
    raise KeyboardInterrupt; a second signal ends it at once, the last checkpoint intact. Raises ElignError.
    """
    check_settings(config)
    Prompts.of(config.rollout, load_policy(config.policy.checkpoint).spec)
    directory = RunDirectory(Path(run_dir), config, resume=resume)
    start = load_policy(directory.start)
    _write_comparison(directory.path / "before.parquet", start, config)
    on_saved()
    make_meter = partial(RayMeter, directory.path.resolve().name)
    for losses in count(1):
        begun = directory.completed_iterations
        try:
            with (
                assembled(config, directory.start, RunControl(directory.path), make_meter) as parts,
                SteadyMeter(make_meter()) as meter,
            ):
                _run(parts, directory, RunExporter(meter), on_iteration, on_saved)
            break
        except LearnerError as error:
            directory = RunDirectory(directory.path, config, resume=True)
            if losses >= MAX_LEARNER_LOSSES and directory.completed_iterations == begun:
                raise
            log.warning("%s; going on from iteration %d", error, directory.completed_iterations)
    _write_comparison(directory.path / "after.parquet", load_policy(directory.best), config)
    directory.write_state("finished", directory.config.run.iterations)
    write_report(directory.path)
    return directory.summary()


def check_settings(config: TrainConfig) -> None:
    """What can be told before anything is made: raises ConfigError or ForceFieldError."""
    check_force_field(config.reward.force_field)
    rollout, skipped = config.rollout, config.learner.skip_last
    trained = rollout.num_steps - branch_index(rollout.num_steps, rollout.shared_prefix)
    if skipped >= trained:
        raise ConfigError(
            f"learner.skip_last = {skipped} leaves nothing to train: rollout.num_steps = {rollout.num_steps} "
            f"and rollout.shared_prefix = {rollout.shared_prefix:g} leave {trained} steps after the branch"
        )


@dataclass(frozen=True)
class Assembly:
    """The parts of a run that is going on; stop says what signals asked for."""

    algorithm: FedGrpo
    pool: RolloutPool
    server: Any
    stop: StopRequest


@contextmanager
def assembled(
    config: TrainConfig,
    start_policy: Path,
    control: PoolControl | None = None,
    make_meter: Callable[[], Meter] = NoMeter,
) -> Iterator[Assembly]:
    """Ray, reward server, pool and algorithm for the block, in which signals ask for a stop.

    control: may change the number of actors meanwhile. make_meter: called in each process that reports
    figures.
    """
    policy = load_policy(start_policy).spec
    pools: list[RolloutPool] = []
    with ray_session(config), stop_on_signals() as stop:
        server = start_reward_server(config.reward, policy.dataset, make_meter)

        def make_pool(config: TrainConfig) -> RolloutPool:
            spec = policy.model_dump(mode="json")
            pools.append(RolloutPool(spec, config, server, lambda: stop.requested, control))
            return pools[-1]

        algorithm = build_algorithm(config, start_policy, make_pool)
        try:
            with watched_front(server, config.reward.timeout_s):
                yield Assembly(algorithm, pools[0], server, stop)
        finally:
            algorithm.stop()
            ray.kill(server)


def build_algorithm(
    config: TrainConfig, start_policy: Path, make_pool: Callable[[TrainConfig], RolloutPool]
) -> FedGrpo:
    """The algorithm with its learners; RLlib's own chatter is kept down."""
    settings = FedGrpoConfig().fed_grpo(train_config=config, start_policy=start_policy, make_source=make_pool)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    algorithm: FedGrpo = settings.build_algo(use_copy=False)
    return algorithm


def _run(
    parts: Assembly,
    directory: RunDirectory,
    exporter: RunExporter,
    on_iteration: Callable[[Row], None] | None,
    on_saved: Callable[[], None],
) -> None:
    """Iterations until the last one, each logged, the best and every n-th saved."""
    algorithm, stop = parts.algorithm, parts.stop
    if directory.checkpoint is not None:
        algorithm.import_state(
            directory.checkpoint.learner,
            directory.checkpoint.plans,
            completed_iterations=directory.completed_iterations,
        )
    settings, judge = directory.config.run, Gfn2ForceField()
    try:
        while algorithm.completed_iterations < settings.iterations:
            if stop.requested:
                raise KeyboardInterrupt
            algorithm.train()
            row = _watched(algorithm, directory, judge)
            directory.log(row, algorithm.scored, algorithm.set_aside)
            exporter.iteration(row, algorithm.scored, parts.pool.status(), algorithm.usages)
            done = algorithm.completed_iterations
            if directory.is_best():
                directory.save_best(algorithm.spec, algorithm.export_state())
            if done % settings.checkpoint_every == 0 or done == settings.iterations:
                directory.save(algorithm.spec, algorithm.export_state(), algorithm.plan_state)
                exporter.saved()
            if done % REPORT_EVERY == 0:
                write_report(directory.path)
            on_saved()
            if on_iteration is not None:
                on_iteration(row)
    except StorageError:
        _note_failure(directory, algorithm.completed_iterations)
        raise
    except (KeyboardInterrupt, RolloutError) as error:
        # a second signal may have hit the middle of an update: then only the last checkpoint is sound
        if not stop.forced:
            directory.save(algorithm.spec, algorithm.export_state(), algorithm.plan_state)
        interrupted = isinstance(error, KeyboardInterrupt)
        directory.write_state("interrupted" if interrupted else "failed", algorithm.completed_iterations)
        raise
    finally:
        directory.metrics.close()


def _note_failure(directory: RunDirectory, completed_iterations: int) -> None:
    """Where a full disk leaves room for it; the error itself is on its way to the user."""
    try:
        directory.write_state("failed", completed_iterations)
    except StorageError as error:
        log.warning("run.json keeps saying that the run goes on: %s", error)


def _watched(algorithm: FedGrpo, directory: RunDirectory, judge: Gfn2ForceField) -> Row:
    """The iteration's figures with those of the watch on gaming; a new alarm is also said aloud."""
    row, run = dict(algorithm.iteration_metrics), directory.config.run
    if run.watch == 0:
        return row
    seed = (run.seed, int(row["iteration"]))
    row |= watch_figures(algorithm.scored, judge.evaluate, number=run.watch, seed=seed)
    found = run_alarms([*directory.metrics.rows, row])
    before = directory.metrics.rows[-1] if directory.metrics.rows else {}
    for alarm, text in found.items():
        if not before.get(f"{ALARM_PREFIX}{alarm}"):
            print(f"warning: {alarm} at iteration {row['iteration']:.0f}: {text}", file=sys.stderr)
    return row | alarm_figures(found)


class StopRequest:
    """What signals asked for: ``requested`` after the first, ``forced`` after the second."""

    def __init__(self) -> None:
        self.requested = False
        self.forced = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if self.requested:
            self.forced = True
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM set a flag while the block runs; only the main thread can be told."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ray_session(config: TrainConfig) -> Iterator[None]:
    """Ray for the block: the one that is there, that of RAY_ADDRESS, or a local one that ends with it."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        actors, reward, learner = config.actors, config.reward, config.learner
        wanted = actors.max * actors.num_cpus + reward.replicas * reward.num_cpus
        needed = math.ceil(wanted) + (learner.learners if learner.learners > 1 else 0)
        # Ray's CPUs are tickets, not cores: actors, server and learner take turns on a small machine
        options["num_cpus"] = max(needed, os.cpu_count() or 1)
        options["object_store_memory"] = OBJECT_STORE_BYTES
        options["include_dashboard"] = False
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def _write_comparison(path: Path, policy: DiffusionPolicy, config: TrainConfig) -> None:
    """Molecules to look at before and after: same sizes, same random numbers."""
    if path.exists() and path.name == "before.parquet":
        return
    prompts, seed = Prompts.of(config.rollout, policy.spec), config.run.seed + COMPARISON_SEED_OFFSET
    parts = []
    for elements in prompts.formulas or (None,):
        number = NUM_COMPARED // max(1, len(prompts.formulas)) or 1
        sizes = draw_sizes(policy, number, seed) if elements is None else [len(elements)] * number
        context = _in_turns(prompts.conditions, number)
        parts.append(
            sample_molecules(
                policy,
                sizes,
                num_steps=config.rollout.num_steps,
                seed=seed,
                context=context,
                elements=elements,
            )
        )
    write_molecules(path, Molecules.cat(parts))


def _in_turns(values: Sequence[float], number: int) -> Tensor | None:
    """[number, 1], the values over and over; None where there are none."""
    if not values:
        return None
    return torch.tensor([values[i % len(values)] for i in range(number)])[:, None]
