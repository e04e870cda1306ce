"""How large should a force field be? Quality against molecules a second, after equal times of training.

    python -m tests.benchmarks.force_field_sizes --labels my-field/labels [--seconds 240] [--plot sizes.svg]
        [--json sizes.json] [names...]

labels: what ``elign force-fields train --out my-field`` keeps. Each size trains for as many steps as fit into
the budget of one thread, and is judged on the same held-out structures. ``--json`` goes on where an
interrupted comparison stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import matplotlib as mpl
import torch

from elign.common.process_memory import keep_freed_memory
from elign.common.scoring import ForceField
from elign.reward_server.force_field_data import LabelledMolecules, from_labels, split_by_source
from elign.reward_server.force_field_report import held_out_errors
from elign.reward_server.force_field_settings import ForceFieldTrainingSettings
from elign.reward_server.force_field_training import fit, make_spec, structure_loss
from elign.reward_server.labels import read_labels
from elign.reward_server.mace_force_field import MaceForceField, prepare
from elign.reward_server.mace_model import MaceSpec, build_network
from elign.reward_server.training_state import TrainingState

SIZES: dict[str, dict[str, Any]] = {
    "32 channels": {"channels": 32},
    "48 channels": {"channels": 48},
    "64 channels": {},
    "96 channels": {"channels": 96},
    "64 channels, 4.5 Å": {"r_max": 4.5},
    "64 channels, l = 3": {"max_ell": 3},
    "64 channels, correlation 3": {"correlation": 3},
}
TIMED_STEPS = 12
TIMED_MOLECULES = 512
MEASURES = {
    "near equilibrium, meV/Å": ("data and relaxed", "force_mae", 1000.0, 0),
    "displaced by 0.05 Å, %": ("displaced 0.05", "force_mae_percent", 1.0, 1),
    "samples, Spearman": ("policy50", "rms_force_spearman", 1.0, 3),
}
"""Column -> row and figure of ``held_out_errors``, factor, digits."""


def settings_of(name: str) -> ForceFieldTrainingSettings:
    return ForceFieldTrainingSettings.model_validate(SIZES[name] | {"warmup_steps": 50, "ema_decay": 0.99})


def step_seconds(settings: ForceFieldTrainingSettings, spec: MaceSpec, data: LabelledMolecules) -> float:
    """Processor time of one training step."""
    network = build_network(spec, torch.float32)
    state = TrainingState(network, settings)
    references = torch.tensor(spec.reference_energies, dtype=torch.float64)
    started = 0.0
    for step in range(TIMED_STEPS + 3):
        if step == 3:
            started = time.process_time()
        batch = data.select(torch.randint(len(data), (settings.batch_size,)))
        state.update(structure_loss(network, spec, batch, references, settings, "cpu"), 1e-3)
    return (time.process_time() - started) / TIMED_STEPS


def rate(field: ForceField, data: LabelledMolecules) -> float:
    """Molecules like QM9's a second, best of three."""
    alike = data.select(torch.tensor([kind == "data" for kind in data.kinds]).nonzero().flatten())
    molecules = alike.molecules[torch.arange(TIMED_MOLECULES) % len(alike)]
    molecules.positions.add_(1e-3 * torch.randn(molecules.positions.shape))  # repeats would be answered once
    seconds = []
    for _ in range(3):
        started = time.process_time()
        field.evaluate(molecules)
        seconds.append(time.process_time() - started)
    return len(molecules) / min(seconds)


def judge(
    name: str, training: LabelledMolecules, held_out: LabelledMolecules, seconds: float
) -> dict[str, float]:
    torch.manual_seed(0)
    settings = settings_of(name)
    spec = make_spec(settings, training)
    steps = int(seconds / step_seconds(settings, spec, training))
    shown = training.select(torch.randperm(len(training))[: steps * settings.batch_size])
    network = build_network(spec, torch.float32)
    epochs = settings.model_copy(update={"epochs": max(1, steps * settings.batch_size // len(shown))})
    averaged = fit(epochs, spec, network, shown, Path(mkdtemp()) / "training").averaged
    errors = held_out_errors(averaged, spec, held_out, settings.max_force)["by_kind"]
    references = dict(zip(spec.elements, spec.reference_energies, strict=True))
    found = {label: scale * errors[row][key] for label, (row, key, scale, _) in MEASURES.items()}
    fast = prepare(averaged, torch.device("cpu"))
    speed = rate(MaceForceField("timed", fast, references), held_out)
    return {"steps": float(steps), "molecules a second": speed} | found


def print_table(found: dict[str, dict[str, float]]) -> None:
    print(
        f"| size | steps | molecules/s | {' | '.join(MEASURES)} |\n|---|---:|---:|{'---:|' * len(MEASURES)}"
    )
    for name, row in found.items():
        cells = " | ".join(f"{row[label]:.{digits}f}" for label, (*_, digits) in MEASURES.items())
        print(f"| {name} | {row['steps']:.0f} | {row['molecules a second']:.0f} | {cells} |")


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(MEASURES), figsize=(12, 3.6))
    for axes, label in zip(panels, MEASURES, strict=True):
        for name, row in found.items():
            axes.plot(row["molecules a second"], row[label], "o", color="tab:blue")
            axes.annotate(name, (row["molecules a second"], row[label]), fontsize=7)
        axes.set_xlabel("molecules a second, one thread")
        axes.set_title(label, fontsize=9)
        axes.margins(x=0.3)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SIZES)}; all by default")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240.0, help="processor time of each training")
    parser.add_argument("--json", type=Path, help="results; those that are there are not repeated")
    parser.add_argument("--plot", type=Path, help="write an SVG picture")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    data = from_labels(read_labels(given.labels))
    training, held_out = split_by_source(data, ForceFieldTrainingSettings().held_out_every)
    print(
        f"{platform.machine()}, one of {os.cpu_count()} CPU cores; {given.seconds:.0f} s each\n", flush=True
    )
    found = json.loads(given.json.read_text()) if given.json is not None and given.json.exists() else {}
    for name in given.names or SIZES:
        if name not in found:
            found[name] = judge(name, training, held_out, given.seconds)
            print(f"{name}: {json.dumps(found[name])}", flush=True)
            if given.json is not None:
                given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print()
    print_table(found)
    if given.plot is not None:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
