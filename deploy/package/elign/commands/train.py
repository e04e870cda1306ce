"""``elign train``: the main job, FED-GRPO on Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.interruption import resumable
from elign.commands.options import ConfigFile, Overrides, Preset

_SHOWN = {"rms_force_mean": "RMS force", "atom_stability": "stable atoms", "uniqueness": "unique"}


def train(
    run_dir: Annotated[
        Path, typer.Option(help="Folder of the run: configuration, metrics, checkpoints, report.")
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
) -> None:
    """Post-train a policy by force and energy rewards.

    Ctrl-C ends the run cleanly after the iteration; --resume goes on from there.

    \b
    Examples:
      elign train --preset laptop --run-dir runs/first
      elign train --preset laptop --set run.iterations=20 --set actors.max=4 --run-dir runs/short
      elign train --config mine.yaml --run-dir runs/mine
      elign train --run-dir runs/first --resume --set run.iterations=200
    """
    from elign.common.config_load import load_config
    from elign.common.errors import ConfigError
    from elign.common.progress import show_progress

    stored = run_dir / "config.yaml"
    if resume and (preset or config):
        raise ConfigError("--resume takes the run's own configuration; change single settings with --set")
    if resume and not stored.exists():
        raise ConfigError(f"there is no run to resume in {run_dir} ({stored} is missing)")
    if not resume and preset is None and config is None:
        raise ConfigError("say what to train: --preset laptop, or --config FILE")
    settings = load_config(preset, stored if resume else config, overrides or [])
    # Only now, because RLlib loads for several seconds.
    from elign.launch import train as launch

    with resumable(f"elign train --run-dir {run_dir} --resume"), show_progress("training") as progress:
        summary = launch(
            settings,
            run_dir,
            resume=resume,
            on_iteration=lambda row: progress(int(row["iteration"]), settings.run.iterations, _figures(row)),
        )
    done, best = summary["completed_iterations"], summary["best_iteration"]
    print(f"{done} iterations, best at {best}; report: {run_dir / 'report.html'}")


def _figures(row: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {row[name]:.3f}" for name, label in _SHOWN.items())
