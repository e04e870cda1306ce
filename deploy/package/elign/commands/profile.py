"""``elign profile``: where the time and memory of a training iteration go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import ConfigFile, Overrides, Preset


def profile(
    preset: Preset = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    iterations: Annotated[
        int, typer.Option("-n", "--iterations", min=1, help="Iterations to measure, after one to warm up.")
    ] = 2,
    out: Annotated[Path, typer.Option(help="JSON file for all figures.")] = Path("profile.json"),
) -> None:
    """Run a few real training iterations and say where their time and memory go.

    Nothing is trained for keeps: the run directory is a temporary one.

    \b
    Examples:
      elign profile --preset laptop
      elign profile --preset laptop --iterations 5 --set actors.max=4 --out four-actors.json
      elign profile --config mine.yaml --iterations 1
    """
    from elign.common.config_load import load_config
    from elign.common.errors import ConfigError
    from elign.common.progress import show_progress
    from elign.common.storage import write_json

    if preset is None and config is None:
        raise ConfigError("say what to profile: --preset laptop, or --config FILE")
    settings = load_config(preset, config, overrides or [])
    try:
        # Only now, because RLlib loads for several seconds.
        from elign.profiling.run import profile_training
        from elign.profiling.table import print_profile

        with show_progress("profiling") as progress:
            measured = profile_training(settings, iterations=iterations, on_iteration=progress)
    except KeyboardInterrupt:
        print("stopped; no profile was written", file=sys.stderr)
        raise typer.Exit(130) from None
    write_json(out, measured.json())
    print_profile(measured)
    print(f"all figures: {out}")
