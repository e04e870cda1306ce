"""A run's folder on disk: what is written when, and what a resumed run finds again.

run_dir/
    config.yaml  run.json  metrics.parquet  tensorboard/      settings, state, figures
    start/  best/                                             policies: the starting one, and the best so far
    checkpoints/iteration_000010/                             to resume from
    samples/iteration_000010.parquet                          that iteration's molecules
    plans_set_aside.json                                      groups that were given up, and why
    control.json  status.json                                 see ``run_control``
    before.parquet  after.parquet                             the same sizes and seeds, start against best
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elign import __version__
from elign.common.checkpoint import load_policy, save_policy, write_policy_files
from elign.common.config import TrainConfig
from elign.common.config_load import dump_config
from elign.common.errors import ConfigError
from elign.common.molecule_io import write_molecules
from elign.common.molecules import Molecules
from elign.common.policy import PolicySpec
from elign.common.rollout import ScoredTrajectory, SetAside
from elign.common.storage import write_atomic, write_directory, write_json
from elign.learner.learner_state import LearnerState
from elign.learner.plan_feed import PlanState
from elign.learner.rollout_metrics import OBJECTIVE
from elign.learner.run_checkpoint import RunCheckpoint, load_newest, save_checkpoint
from elign.learner.run_metrics import MetricsLog, Row, best_iteration
from elign.learner.set_aside_log import SetAsideLog


class RunDirectory:
    """Opens a new run, or with ``resume`` the one that is there; refuses to mix them up."""

    def __init__(self, run_dir: Path, config: TrainConfig, *, resume: bool) -> None:
        self.path, self.config = run_dir, config
        if not resume and run_dir.exists() and any(run_dir.iterdir()):
            raise ConfigError(
                f"{run_dir} is not empty; continue its run with --resume, or name another folder"
            )
        self.checkpoint = load_newest(run_dir)  # None where the run ended before its first: it begins anew
        policy = None if self.start.exists() else load_policy(config.policy.checkpoint)
        text = dump_config(config)
        write_atomic(run_dir / "config.yaml", lambda path: _write_text(path, text))
        if policy is not None:
            metadata = {"start_of": config.policy.checkpoint, "num_steps": config.rollout.num_steps}
            save_policy(policy, self.start, metadata)
        self.metrics = MetricsLog(run_dir, completed=self.completed_iterations)
        self._set_aside = SetAsideLog(run_dir, completed=self.completed_iterations)
        self.write_state("running", self.completed_iterations)

    @property
    def start(self) -> Path:
        """The starting policy; a run keeps its own copy."""
        return self.path / "start"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def completed_iterations(self) -> int:
        """Of the checkpoint this run goes on from."""
        return 0 if self.checkpoint is None else self.checkpoint.completed_iterations

    def write_state(self, state: str, completed_iterations: int) -> None:
        """run.json: running, finished or interrupted, how far, and with which versions and seed."""
        versions = {name: version(name) for name in ("torch", "ray", "numpy")}
        write_json(
            self.path / "run.json",
            {
                "state": state,
                "completed_iterations": completed_iterations,
                "iterations": self.config.run.iterations,
                "seed": self.config.run.seed,
                "versions": {"python": platform.python_version(), "elign": __version__, **versions},
            },
        )

    def log(self, row: Row, scored: list[ScoredTrajectory], set_aside: Sequence[SetAside] = ()) -> None:
        """Figures of one more iteration, groups it gave up, and its molecules when it is their turn."""
        self.metrics.append(row)
        iteration = int(row["iteration"])
        self._set_aside.append(iteration, set_aside)
        if iteration % self.config.run.sample_every == 0:
            self._write_samples(self.path / "samples" / f"iteration_{iteration:06d}.parquet", scored)

    def summary(self) -> dict[str, Any]:
        """What came out: iterations done, the best one and its objective, the last figures, where it is."""
        best = self._best()
        return {
            "run_dir": str(self.path),
            "completed_iterations": len(self.metrics.rows),
            "best_iteration": None if best is None else best[0],
            "best_objective": None if best is None else best[1],
            "last": dict(self.metrics.rows[-1]),
        }

    def is_best(self) -> bool:
        """Whether the last iteration has the highest moving average of the objective so far."""
        best = self._best()
        return best is not None and best[0] == len(self.metrics.rows)

    def _best(self) -> tuple[int, float] | None:
        window = min(self.config.run.best_window, self.config.run.iterations)
        return best_iteration(self.metrics.rows, OBJECTIVE, window)

    def save_best(self, spec: PolicySpec, learner: LearnerState) -> None:
        """Write ``best/``: averaged weights where they are kept."""
        write_directory(
            self.best,
            lambda folder: write_policy_files(spec, learner.best_weights, folder, self._metadata()),
        )

    def save(self, spec: PolicySpec, learner: LearnerState, plans: PlanState) -> Path:
        """Write a checkpoint; and ``best/`` while no iteration has earned that place yet."""
        if not self.best.exists():
            self.save_best(spec, learner)
        checkpoint = RunCheckpoint(len(self.metrics.rows), learner, plans)
        return save_checkpoint(
            self.path, checkpoint, spec, self._metadata(), keep_last=self.config.run.keep_last
        )

    def _metadata(self) -> dict[str, Any]:
        """What a policy of this run says of itself."""
        rows = self.metrics.rows
        last: Mapping[str, float] = rows[-1] if rows else {}
        names = (OBJECTIVE, "rms_force_mean", "atom_stability", "validity", "uniqueness")
        return {
            "trained_by": "fed-grpo",
            "started_from": self.config.policy.checkpoint,
            "force_field": self.config.reward.force_field,
            "num_steps": self.config.rollout.num_steps,
            "iteration": len(rows),
            "seed": self.config.run.seed,
            "rollout_metrics": {name: last[name] for name in names if name in last},
        }

    def _write_samples(self, path: Path, scored: list[ScoredTrajectory]) -> None:
        rewards = [s.rewards for s in scored]
        failures = [None if f is None else str(f) for r in rewards for f in r.failures]
        write_molecules(
            path,
            Molecules.cat([s.trajectory.molecules for s in scored]),
            {
                "group": [s.trajectory.plan.group_id for s in scored for _ in s.rewards.failures],
                "rms_force": _column([r.rms_force for r in rewards]),
                "formation_energy": _column([r.formation_energy for r in rewards]),
                "stable": _column([r.stable for r in rewards]),
                "failure": failures,
            },
        )


def _column(parts: list[Tensor]) -> np.ndarray:
    column: np.ndarray = torch.cat(parts).numpy()
    return column


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
