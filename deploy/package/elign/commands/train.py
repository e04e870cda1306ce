"""``elign train``: the main job, FED-GRPO on Ray."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elign.commands.interruption import resumable
from elign.commands.options import ConfigFile, Overrides, Preset

if TYPE_CHECKING:
    from elign.common.config import TrainConfig

_SHOWN = {"rms_force_mean": "RMS force", "atom_stability": "stable atoms", "uniqueness": "unique"}


def train(
    run_dir: Annotated[
        str,
        typer.Option(
            help="Folder of the run: configuration, metrics, checkpoints, report. Or the URI of one, as in "
            "s3://bucket/runs/first; the run then works in a local copy."
        ),
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
      elign train --preset laptop --run-dir s3://bucket/runs/first
      elign train --config mine.yaml --run-dir runs/mine
      elign train --run-dir runs/first --resume --set run.iterations=200
    """
    from elign.common.config_load import load_config
    from elign.common.errors import ConfigError

    if resume and (preset or config):
        raise ConfigError("--resume takes the run's own configuration; change single settings with --set")
    if not resume and preset is None and config is None:
        raise ConfigError("say what to train: --preset laptop, or --config FILE")
    settings = None if resume else load_config(preset, config, overrides or [])
    from elign.learner.run_mirror import CONFIG_FILE, run_folder

    how = f"elign train --run-dir {shlex.quote(run_dir)} --resume"
    with resumable(how), run_folder(run_dir, resume=resume) as (folder, saved):
        stored = folder / CONFIG_FILE
        if resume and not stored.exists():
            raise ConfigError(f"there is no run to resume in {run_dir} ({stored} is missing)")
        summary = _launch(settings or load_config(None, stored, overrides or []), folder, resume, saved)
    done, best = summary["completed_iterations"], summary["best_iteration"]
    print(f"{done} iterations, best at {best}; report: {folder / 'report.html'}")


def _launch(settings: TrainConfig, folder: Path, resume: bool, saved: Callable[[], None]) -> dict[str, Any]:
    from elign.common.progress import show_progress

    # Only now, because RLlib loads for several seconds.
    from elign.launch import train as launch

    with show_progress("training") as progress:
        return launch(
            settings,
            folder,
            resume=resume,
            on_iteration=lambda row: progress(int(row["iteration"]), settings.run.iterations, _figures(row)),
            on_saved=saved,
        )


def _figures(row: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {row[name]:.3f}" for name, label in _SHOWN.items())
