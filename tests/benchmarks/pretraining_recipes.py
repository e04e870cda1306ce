"""Recipes of pre-training under one budget of processor time: what makes a small policy good soonest?

    python -m tests.benchmarks.pretraining_recipes --data qm9_12000.npz [--seconds 120] [--plot recipes.svg]
        [--json recipes.json] [names...]

Each recipe changes one thing of the shipped one and trains for as many steps as fit into the budget, which
is measured as processor time of one thread. Printed as Markdown: steps, validation loss (the plain loss of
held-out molecules at fixed times, the same for all), stable atoms and molecules of samples at 100 and at 1000
steps (the same sizes and random numbers for all). ``--json`` goes on where an interrupted comparison stopped.
The lengths of averaging are compared within one training: the shipped recipe keeps several.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

from elign.common.data import load_dataset
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy
from elign.common.process_memory import keep_freed_memory
from elign.common.sampling import sample_molecules
from elign.common.stability import stable_atoms
from elign.learner.pretrain import PretrainRun, PretrainSettings
from elign.learner.score_matching import step_generator, stratified_times, trimmed

SAMPLES = {100: 256, 1000: 64}
"""Denoising steps -> molecules."""
TIMED_STEPS = 12
AVERAGES = (0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Recipe:
    """settings: what differs from the shipped ones. adam: AdamW in place of Muon, with this learning rate.

    weight: of the loss, by alpha²/sigma² [B]. times: from even times [B] to those trained on.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    weight: Callable[[Tensor], Tensor] | None = None
    times: Callable[[Tensor], Tensor] | None = None
    adam: float | None = None


def min_snr(snr: Tensor) -> Tensor:
    """Min-SNR-5 (Hang et al. 2023) for a network that predicts noise."""
    return snr.clamp(max=5.0) / snr


def truncated_snr(snr: Tensor) -> Tensor:
    """Truncated SNR (Salimans and Ho 2022), capped where nothing but noise is left."""
    return (snr.clamp(min=1.0) / snr).clamp(max=5.0)


def early(t: Tensor) -> Tensor:
    """More of the small times, where the loss of a molecule varies most."""
    return (1000 * (t.double() / 1000) ** 1.5).long()


RECIPES = {
    "shipped": Recipe(),
    "AdamW 1e-3": Recipe(adam=1e-3),
    "AdamW 2e-3": Recipe(adam=2e-3),
    "AdamW 4e-3": Recipe(adam=4e-3),
    "Muon 4e-3": Recipe({"learning_rate": 4e-3}),
    "Muon 1.6e-2": Recipe({"learning_rate": 16e-3}),
    "no radial features": Recipe({"num_radial": 0}),
    "batch 32": Recipe({"batch_size": 32}),
    "batch 128": Recipe({"batch_size": 128}),
    "float32": Recipe({"bf16_fraction": 0.0}),
    "96 x 5": Recipe({"hidden": 96}),
    "128 x 5": Recipe({"hidden": 128}),
    "64 x 3": Recipe({"num_layers": 3}),
    "64 x 8": Recipe({"num_layers": 8}),
    "min-SNR weights": Recipe(weight=min_snr),
    "truncated SNR weights": Recipe(weight=truncated_snr),
    "more small times": Recipe(times=early),
}


class AdamOnly:
    """AdamW for everything, behind the interface of ``PretrainOptimizer``."""

    def __init__(self, policy: DiffusionPolicy, peak_ratio: float) -> None:
        self.policy, self.peak_ratio = policy, peak_ratio
        self.optimizer = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.99), weight_decay=1e-6)

    def step(self, loss: Tensor, *, muon_rate: float, adam_rate: float, grad_clip: float) -> None:  # noqa: ARG002
        self.policy.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = adam_rate * self.peak_ratio
        self.optimizer.step()


class RecipeRun(PretrainRun):
    """A pre-training by a recipe that writes nothing."""

    def __init__(self, recipe: Recipe, molecules: Molecules, num_steps: int) -> None:
        warmup = max(1, num_steps // 10)
        settings = PretrainSettings(
            **{"num_steps": num_steps, "warmup_steps": warmup, "ema_decay": 0.99} | recipe.settings
        )
        super().__init__(settings, molecules, Path(mkdtemp()), {})
        self.recipe = recipe
        self.averages = {decay: copy.deepcopy(self.average) for decay in AVERAGES}
        if recipe.adam is not None:
            ratio = recipe.adam / settings.adam_learning_rate
            self.optimizer = AdamOnly(self.policy, ratio)  # type: ignore[assignment]

    def train_step(self) -> None:
        self._train_on(self._next_batch())
        self.step += 1
        for decay, average in self.averages.items():
            young = min(decay, (1 + self.step) / (10 + self.step))
            for mean, new in zip(average.parameters(), self.policy.parameters(), strict=True):
                mean.lerp_(new.detach(), 1 - young)

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        t = super()._times(count, generator)
        return t if self.recipe.times is None else self.recipe.times(t)

    def _weights(self, t: Tensor) -> Tensor:
        if self.recipe.weight is None:
            return super()._weights(t)
        weights = self.recipe.weight(torch.exp(-self.policy.schedule.gamma[t]))
        return weights / self._mean_weight

    @property
    def _mean_weight(self) -> Tensor:
        assert self.recipe.weight is not None
        return self.recipe.weight(torch.exp(-self.policy.schedule.gamma)).mean()


def train(recipe: Recipe, molecules: Molecules, seconds: float) -> tuple[RecipeRun, float]:
    """The run after the budget's steps, and the processor time it took."""
    trial = RecipeRun(recipe, molecules, 10_000)
    for _ in range(3):
        trial.train_step()
    started = time.process_time()
    for _ in range(TIMED_STEPS):
        trial.train_step()
    cost = (time.process_time() - started) / TIMED_STEPS
    run = RecipeRun(recipe, molecules, max(20, int(seconds / cost)))
    started = time.process_time()
    while run.step < run.settings.num_steps and time.process_time() - started < 1.1 * seconds:
        run.train_step()
    return run, time.process_time() - started


@torch.no_grad()
def validation_loss(run: RecipeRun, policy: DiffusionPolicy) -> float:
    generator = step_generator(0, 0)
    losses = []
    for part in torch.argsort(run.validation.num_atoms).split(64):
        batch = trimmed(run.validation, part)
        t = stratified_times(len(batch), policy.num_timesteps, generator)
        losses.append(run._loss(policy, batch, t, generator))
    return float(torch.cat(losses).mean())


def stability(run: RecipeRun) -> dict[str, float]:
    found = {}
    for steps, count in SAMPLES.items():
        sizes = run.validation.num_atoms[torch.arange(count) % len(run.validation)].tolist()
        samples = sample_molecules(run.average, sizes, num_steps=steps, seed=1)
        stable = stable_atoms(samples, run.settings.dataset)
        found[f"atoms@{steps}"] = float(stable.sum() / samples.num_atoms.sum())
        found[f"molecules@{steps}"] = float((stable == samples.num_atoms).float().mean())
    return found


def judge(name: str, molecules: Molecules, seconds: float) -> dict[str, Any]:
    run, spent = train(RECIPES[name], molecules, seconds)
    averages = {str(decay): validation_loss(run, average) for decay, average in run.averages.items()}
    return {
        "steps": run.step,
        "seconds": spent,
        "parameters": sum(p.numel() for p in run.policy.parameters()),
        "validation_loss": validation_loss(run, run.average),
        "last_weights_loss": validation_loss(run, run.policy),
        "averages": averages,
        **stability(run),
    }


def print_table(found: dict[str, dict[str, Any]]) -> None:
    columns = [f"{kind}@{steps}" for steps in SAMPLES for kind in ("atoms", "molecules")]
    print(f"| recipe | steps | validation loss | {' | '.join(f'stable {c}, %' for c in columns)} |")
    print(f"|---|---:|{'---:|' * (len(columns) + 1)}")
    for name, row in found.items():
        cells = " | ".join(f"{100 * row[column]:.1f}" for column in columns)
        print(f"| {name} | {row['steps']} | {row['validation_loss']:.4f} | {cells} |")
    if "shipped" in found:
        row = found["shipped"]
        lengths = ", ".join(f"{decay} {loss:.4f}" for decay, loss in row["averages"].items())
        print(f"\nValidation loss by length of averaging: none {row['last_weights_loss']:.4f}, {lengths}")


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Stable atoms of each recipe, best at the top."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    names = sorted(found, key=lambda name: found[name]["atoms@1000"])
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(names) + 1))
    for steps, marker in zip(SAMPLES, "os", strict=True):
        values = [100 * found[name][f"atoms@{steps}"] for name in names]
        axes.plot(values, names, marker, label=f"{steps} denoising steps")
    axes.set_xlabel("stable atoms, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--data", required=True, help="as of elign pretrain")
    parser.add_argument("--seconds", type=float, default=120.0, help="processor time of each training")
    parser.add_argument("--json", type=Path, help="results; those that are there are not repeated")
    parser.add_argument("--plot", type=Path, help="write an SVG picture")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    molecules = load_dataset(given.data).molecules
    found = json.loads(given.json.read_text()) if given.json is not None and given.json.exists() else {}
    print(
        f"{platform.machine()}, one of {os.cpu_count()} CPU cores; {given.seconds:.0f} s each\n", flush=True
    )
    for name in given.names or RECIPES:
        if name not in found:
            found[name] = judge(name, molecules, given.seconds)
            print(f"{name}: {json.dumps(found[name])}", flush=True)
            if given.json is not None:
                given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print()
    print_table(found)
    if given.plot is not None:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
