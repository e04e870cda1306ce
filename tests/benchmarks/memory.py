"""Memory of a rollout actor and of the learner, measured beside the formulas, for the three presets.

    python -m tests.benchmarks.memory

Runs ``elign profile``, each in processes of its own. ``laptop`` is measured as it is. For the paper's presets
policies of the published sizes with random weights stand in, all molecules are as large as the data set's
largest, and steps, groups and samples are few, so that a CPU is done in minutes: that leaves out nothing that
a step or a chunk needs, and the formula gives the rest. Prints Markdown.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elign.common.checkpoint import load_policy, save_policy
from elign.common.config import TrainConfig
from elign.common.config_load import load_config
from elign.common.datasets import get_dataset
from elign.common.devices import cpu_name
from elign.common.memory_cost import GroupSize, rollout_memory
from elign.common.network_cost import NetworkShape
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.sampling import branch_index
from elign.learner.memory_cost import UpdateSize, learner_memory

FEW = (
    "rollout.num_steps=5",
    "rollout.groups=1",
    "actors.max=1",
    "rollout.samples_per_group=8",
    # the shipped force field is at hand, and with random weights only stability can be judged
    "reward.force_field=elign-mace-small",
    "reward.stability_weight=1.0",
)
PUBLISHED = {"paper-qm9": ("qm9", 9), "paper-geom": ("geom", 4)}
"""Data set and layers of 256 of the published EDM."""


@dataclass(frozen=True)
class Case:
    """A preset, the policy that it is measured with, and what is set smaller than it says."""

    preset: str
    policy: str
    overrides: tuple[str, ...]


def cases(folder: Path) -> Iterator[Case]:
    """Random policies of the published sizes are written into ``folder``."""
    yield Case("laptop", "elign-qm9-small", ())
    for preset, (dataset, layers) in PUBLISHED.items():
        info = get_dataset(dataset)
        spec = PolicySpec(
            dataset=dataset,
            hidden=256,
            num_layers=layers,
            includes_charges=info.includes_charges,
            size_histogram={info.max_num_atoms: 1},
        )
        save_policy(DiffusionPolicy(spec), folder / preset)
        yield Case(preset, str(folder / preset), (f"policy.checkpoint={folder / preset}", *FEW))


def profile(case: Case, folder: Path) -> dict[str, Any]:
    """What ``elign profile`` saves of one iteration, progress shown."""
    out = folder / f"{case.preset}.json"
    settings = [word for override in case.overrides for word in ("--set", override)]
    command = [
        sys.executable,
        "-m",
        "elign",
        "profile",
        "--preset",
        case.preset,
        "-n",
        "1",
        "--out",
        str(out),
    ]
    subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
    measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return measured


def whole_preset(case: Case, device: str) -> tuple[int, int]:
    """What actor and learner grow by with the preset as it is and the data set's largest molecules, bytes."""
    config, policy = load_config(case.preset, None, []), load_policy(case.policy)
    shape, size = NetworkShape.of(policy.spec), _update_size(config, policy)
    # two chunks at a time on the CPU of the machine that is named below, one on a GPU
    threads = torch.get_num_threads() if device == "cpu" else 1
    learner = learner_memory(shape, size, device=device, threads=threads)
    return rollout_memory(shape, size.group, device=device).total, learner.total


def _update_size(config: TrainConfig, policy: DiffusionPolicy) -> UpdateSize:
    rollout, learner = config.rollout, config.learner
    shared = branch_index(rollout.num_steps, rollout.shared_prefix)
    group = GroupSize(
        num_atoms=get_dataset(policy.spec.dataset).max_num_atoms,
        num_samples=rollout.samples_per_group,
        shared_steps=shared,
        trained_steps=rollout.num_steps - shared,
        state_dim=policy.state_dim,
    )
    rows = rollout.groups * rollout.samples_per_group * (group.trained_steps - learner.skip_last)
    return UpdateSize(group, rollout.groups, rows, learner.minibatch_size, learner.kl_coefficient > 0)


def rows(case: Case, measured: dict[str, Any]) -> Iterator[str]:
    """One line for the actor, one for the learner."""
    cpu, gpu = whole_preset(case, "cpu"), whole_preset(case, "cuda")
    for place, name in enumerate(("rollout actor", "driver and learner")):
        process = measured["processes"][name]
        growth = process["peak_bytes"] - process["rest_bytes"]
        figures = (process["peak_bytes"], growth, process["predicted_bytes"], cpu[place], gpu[place])
        yield (
            f"| `{case.preset}` | {name} | " + " | ".join(f"{number / 1e6:.0f}" for number in figures) + " |"
        )


def main() -> None:
    lines = [
        "| preset | process | peak | growth | formula | whole preset, CPU | whole preset, GPU |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory(prefix="elign-memory-") as name:
        for case in cases(Path(name)):
            lines += rows(case, profile(case, Path(name)))
    print(f"{cpu_name()}, torch {torch.__version__}; MB\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
