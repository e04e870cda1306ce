"""``elign pretrain``: a policy from molecules, by score matching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.interruption import resumable
from elign.commands.options import Overrides


def pretrain(
    data: Annotated[
        str,
        typer.Option(
            help="qm9 (downloaded once), or a file: .npz (QM9 layout), .extxyz, .xyz, .sdf, .parquet."
        ),
    ],
    run_dir: Annotated[Path, typer.Option(help="Folder of the run: configuration, log, state, best policy.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
) -> None:
    """Train a policy from scratch on molecules, by score matching. Ctrl-C saves; --resume goes on.

    The result is a policy: elign sample --policy RUN_DIR. Settings for --set: dataset (qm9 or geom), hidden,
    num_layers, num_steps, batch_size, learning_rate, device and others; a wrong one gets the whole list.

    \b
    Examples:
      elign pretrain --data qm9 --run-dir runs/prior
      elign pretrain --data molecules.sdf --set num_steps=5000 --set device=cuda --run-dir runs/mine
      elign pretrain --data qm9 --run-dir runs/prior --resume
    """
    from elign.common.config_load import load_settings
    from elign.common.data import load_dataset
    from elign.common.errors import ConfigError
    from elign.common.progress import show_progress
    from elign.common.remote_folder import is_uri
    from elign.learner.pretrain import PretrainSettings
    from elign.learner.pretrain import pretrain as run

    if is_uri(run_dir):
        raise ConfigError(f"--run-dir {run_dir}: pre-training writes into a local folder")
    stored = run_dir / "config.yaml"
    if resume and not stored.exists():
        raise ConfigError(f"there is no run to resume in {run_dir} ({stored} is missing)")
    settings = load_settings(PretrainSettings, {}, stored if resume else None, overrides or [])
    with show_progress("loading data") as progress:
        molecules = load_dataset(data, progress)
    provenance = {"data": molecules.source, "data_sha256": molecules.sha256}
    how = f"elign pretrain --data {data} --run-dir {run_dir} --resume"
    with resumable(how), show_progress("pretraining") as progress:
        figures = run(
            settings, molecules.molecules, run_dir, resume=resume, on_progress=progress, provenance=provenance
        )
    print(json.dumps(figures))
