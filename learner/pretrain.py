"""Pre-training by score matching: data in, a policy out, resumable at any moment.

The run directory gets ``config.yaml``, ``log.parquet`` (losses and sampled stability), ``state/`` to resume
from and ``best/``, a policy folder: the averaged weights with the lowest validation loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from torch import Tensor

from elign.common.checkpoint import load_policy, save_policy
from elign.common.config import Settings
from elign.common.datasets import get_dataset
from elign.common.errors import ConfigError, DataError
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, PolicySpec, project
from elign.common.sampling import sample_molecules
from elign.common.stability import stable_atoms
from elign.common.storage import write_atomic, write_text
from elign.common.training_state import load_training, save_training
from elign.common.yaml_files import to_yaml
from elign.learner.pretrain_optimizer import PretrainOptimizer
from elign.learner.score_matching import (
    epoch_batches,
    noise_loss,
    random_rotations,
    step_generator,
    stratified_times,
    trimmed,
)


class PretrainSettings(Settings):
    """What ``elign pretrain`` may be told with --set; the defaults are those of ``elign-qm9-small``."""

    dataset: str = Field("qm9", description="Element layout: qm9 or geom")
    hidden: int = Field(64, ge=4)
    num_layers: int = Field(5, ge=1)
    coords_range: float = Field(3.0, gt=0, description="Bound of one layer's coordinate moves")
    normalization_factor: float = Field(4.0, gt=0, description="Divides sums over neighbours")
    num_radial: int = Field(16, ge=0, description="Radial features of a pair; 0: published EDM")
    initial: str | None = Field(
        None, description="Policy to start from, by name or path; the settings of the network must be its own"
    )
    num_steps: int = Field(14_000, ge=1, description="Optimizer steps")
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(8e-3, gt=0, description="Of Muon, for the hidden matrices")
    adam_learning_rate: float = Field(2e-3, gt=0, description="Of AdamW, for all else; same schedule")
    final_learning_rate: float = Field(1e-5, gt=0)
    warmup_steps: int = Field(500, ge=0)
    grad_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, gt=0, lt=1)
    bf16_fraction: float = Field(
        0.85, ge=0, le=1, description="Part of the steps, from the start, in bfloat16"
    )
    validation_fraction: float = Field(0.03, gt=0, lt=1)
    log_every: int = Field(200, ge=1)
    validate_every: int = Field(2000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    stability_samples: int = Field(64, ge=0)
    stability_steps: int = Field(50, ge=1)
    seed: int = 0
    device: str = "cpu"


ProgressCallback = Callable[[int, int, str], None]


def pretrain(
    settings: PretrainSettings,
    molecules: Molecules,
    run_dir: Path,
    *,
    resume: bool = False,
    on_progress: ProgressCallback | None = None,
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on ``molecules``; returns the last figures. provenance goes into the policy's metadata.

    Interrupted (also by Ctrl-C), it saves its state; with ``resume`` it goes on as if nothing had happened.
    """
    run = PretrainRun(settings, molecules, run_dir, provenance or {})
    run.start(resume)
    try:
        while run.step < settings.num_steps:
            run.advance(on_progress)
    except KeyboardInterrupt:
        run.save_state()
        raise
    if run.recent:
        run.validate()
    run.save_state()
    return run.log[-1]


class PretrainRun:
    """State of one pre-training: policy, its average, optimizer, step and log."""

    def __init__(
        self, settings: PretrainSettings, molecules: Molecules, run_dir: Path, provenance: dict[str, Any]
    ) -> None:
        self.settings, self.run_dir, self.provenance = settings, run_dir, provenance
        _check_data(molecules, settings)
        count = len(molecules)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed))
        held_out = max(1, round(count * settings.validation_fraction))
        self.training, self.validation = molecules[order[held_out:]], molecules[order[:held_out]]
        sizes, counts = torch.unique(self.training.num_atoms, return_counts=True)
        spec = PolicySpec(
            dataset=settings.dataset,
            hidden=settings.hidden,
            num_layers=settings.num_layers,
            coords_range=settings.coords_range,
            normalization_factor=settings.normalization_factor,
            num_radial=settings.num_radial,
            includes_charges=get_dataset(settings.dataset).includes_charges,
            size_histogram=dict(zip(sizes.tolist(), counts.tolist(), strict=True)),
        )
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.policy = DiffusionPolicy(spec).to(settings.device)
        if settings.initial is not None:
            _start_from(settings.initial, self.policy)
        self.average = DiffusionPolicy(spec).to(settings.device).requires_grad_(False)
        self.average.load_state_dict(self.policy.state_dict())
        self.optimizer = PretrainOptimizer(self.policy)
        self.step, self.best, self.log = 0, math.inf, list[dict[str, Any]]()
        self.batches: list[Tensor] = []
        self.recent: list[float] = []
        self.seconds, self.started = 0.0, time.perf_counter()

    def advance(self, on_progress: ProgressCallback | None) -> None:
        """One optimizer step, and what is due after it."""
        settings = self.settings
        self.recent.append(self._train_on(self._next_batch()))
        self.step += 1
        if self.step % settings.log_every == 0 and on_progress is not None:
            mean = sum(self.recent[-settings.log_every :]) / len(self.recent[-settings.log_every :])
            on_progress(self.step, settings.num_steps, f"loss {mean:.4f} lr {self._learning_rate():.1e}")
        if self.step % settings.validate_every == 0:
            self.validate()
        if self.step % settings.checkpoint_every == 0:
            self.save_state()

    def _next_batch(self) -> Molecules:
        per_epoch = max(len(self.training) // self.settings.batch_size, 1)
        epoch, position = divmod(self.step, per_epoch)
        if position == 0 or not self.batches:
            self.batches = epoch_batches(
                self.training.num_atoms, self.settings.batch_size, self.settings.seed, epoch
            )
        return trimmed(self.training, self.batches[position])

    def _train_on(self, batch: Molecules) -> float:
        generator = step_generator(self.settings.seed, self.step)
        rotations = random_rotations(len(batch), generator)
        batch = Molecules(batch.positions @ rotations, batch.atomic_numbers, batch.node_mask)
        t = self._times(len(batch), generator)
        with self._autocast():
            loss = (self._weights(t) * self._loss(self.policy, batch, t, generator)).mean()
        rate = self._learning_rate()
        adam_rate = rate * self.settings.adam_learning_rate / self.settings.learning_rate
        self.optimizer.step(loss, muon_rate=rate, adam_rate=adam_rate, grad_clip=self.settings.grad_clip)
        # A young average forgets faster, so that it does not drag the random start along.
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for mean, new in zip(self.average.parameters(), self.policy.parameters(), strict=True):
            mean.lerp_(new.detach(), 1 - decay)
        return float(loss.detach())

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] times to train on."""
        return stratified_times(count, self.policy.num_timesteps, generator)

    def _weights(self, t: Tensor) -> Tensor:
        """[B] weights of the losses at times t: all the same (EDM's simple objective)."""
        return torch.ones(len(t), device=self.settings.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.step < self.settings.bf16_fraction * self.settings.num_steps:
            return torch.autocast(torch.device(self.settings.device).type, dtype=torch.bfloat16)
        return nullcontext()

    def _loss(
        self, policy: DiffusionPolicy, batch: Molecules, t: Tensor, generator: torch.Generator
    ) -> Tensor:
        device = self.settings.device
        z0 = policy.encode(batch.to(device))
        noise = torch.randn(z0.shape, generator=generator).to(device)
        return noise_loss(
            policy, z0, t.to(device), project(noise, batch.node_mask.to(device)), batch.node_mask.to(device)
        )

    def _learning_rate(self) -> float:
        s = self.settings
        if self.step < s.warmup_steps:
            return s.learning_rate * (self.step + 1) / (s.warmup_steps + 1)
        progress = (self.step - s.warmup_steps) / max(s.num_steps - s.warmup_steps, 1)
        return s.final_learning_rate + (s.learning_rate - s.final_learning_rate) * 0.5 * (
            1 + math.cos(math.pi * progress)
        )

    @torch.no_grad()
    def validate(self) -> None:
        """Loss on held-out molecules at fixed times and noise; stability of fresh samples; best policy."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        losses = []
        index = torch.argsort(self.validation.num_atoms)
        for part in index.split(self.settings.batch_size):
            batch = trimmed(self.validation, part)
            t = stratified_times(len(batch), self.policy.num_timesteps, generator)
            losses.append(self._loss(self.average, batch, t, generator))
        loss = float(torch.cat(losses).mean())
        self.log.append(
            {
                "step": self.step,
                "training_loss": sum(self.recent) / len(self.recent),
                "validation_loss": loss,
                **self._stability(),
                "seconds": self.seconds + time.perf_counter() - self.started,
            }
        )
        self.recent = []
        table = pa.Table.from_pylist(self.log)
        write_atomic(self.run_dir / "log.parquet", lambda path: pq.write_table(table, path))
        if loss < self.best:
            self.best = loss
            save_policy(self.average, self.run_dir / "best", {**self.provenance, **self.log[-1]})

    def _stability(self) -> dict[str, float]:
        count = self.settings.stability_samples
        if count == 0:
            return {}
        sizes = self.validation.num_atoms[torch.arange(count) % len(self.validation)].tolist()
        samples = sample_molecules(
            self.average, sizes, num_steps=self.settings.stability_steps, seed=self.settings.seed
        )
        stable = stable_atoms(samples, self.settings.dataset)
        return {
            "atom_stability": float(stable.sum() / samples.num_atoms.sum()),
            "molecule_stability": float((stable == samples.num_atoms).float().mean()),
        }

    def start(self, resume: bool) -> None:
        """Begin in an empty folder, or go on from the saved state."""
        state = self.run_dir / "state"
        if resume:
            self._load_state(state)
        elif state.exists():
            raise ConfigError(
                f"{self.run_dir} already holds a run; give --resume to go on, or another --run-dir"
            )
        write_text(self.run_dir / "config.yaml", to_yaml(self.settings.model_dump(mode="json")))

    def save_state(self) -> None:
        """Everything needed to go on exactly, replaced in one step."""
        parts = {
            "policy": self.policy.state_dict(),
            "average": self.average.state_dict(),
            "moments": self.optimizer.read(),
        }
        counters = {
            "step": self.step,
            "best": self.best,
            "log": self.log,
            "recent": self.recent,
            "seconds": self.seconds + time.perf_counter() - self.started,
            "settings": self.settings.model_dump(mode="json"),
        }
        save_training(self.run_dir / "state", parts, counters)

    def _load_state(self, state: Path) -> None:
        parts, counters = load_training(state)
        # num_steps may change: a run can be made longer or shorter when it goes on
        given = self.settings.model_dump(mode="json")
        if {**counters["settings"], "num_steps": None} != {**given, "num_steps": None}:
            raise ConfigError(
                f"{self.run_dir} was started with other settings; only num_steps may change on resume"
            )
        self.policy.load_state_dict(parts["policy"])
        self.average.load_state_dict(parts["average"])
        self.optimizer.write(parts["moments"])
        self.step, self.best, self.log = counters["step"], counters["best"], counters["log"]
        self.recent, self.seconds = counters["recent"], counters["seconds"]


def _start_from(name: str, policy: DiffusionPolicy) -> None:
    """The weights of the policy ``name``. Raises ConfigError where it is of another shape."""
    source = load_policy(name)
    sizes = {"size_histogram"}
    theirs, ours = (p.spec.model_dump(exclude=sizes) for p in (source, policy))
    different = [f"{key} {theirs[key]}" for key in ours if theirs[key] != ours[key]]
    if different:
        raise ConfigError(f"initial: {name} has {', '.join(different)}; set the same, or start afresh")
    policy.load_state_dict(source.state_dict())


def _check_data(molecules: Molecules, settings: PretrainSettings) -> None:
    known = set(get_dataset(settings.dataset).atomic_numbers)
    foreign = sorted(set(molecules.atomic_numbers[molecules.node_mask].tolist()) - known)
    if foreign:
        raise DataError(
            f"the data hold atomic numbers {foreign}, which {settings.dataset} policies do not know"
        )
    if len(molecules) < 2:
        raise DataError(f"{len(molecules)} molecules are too few to train on")
