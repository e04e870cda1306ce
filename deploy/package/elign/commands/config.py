"""``elign config``: the resolved configuration of a run, and its schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from elign.commands.options import ConfigFile, Overrides, Preset

app = typer.Typer(help="Show a configuration, or the schema of all settings.", no_args_is_help=True)


@app.command()
def show(
    preset: Preset = None,
    file: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print the configuration that a training run would use.

    \b
    Examples:
      elign config show --preset laptop
      elign config show --preset paper-qm9 --set rollout.num_steps=500 > mine.yaml
      elign config show --config mine.yaml --json
    """
    from elign.common.config_load import dump_config, load_config

    config = load_config(preset, file, overrides or [])
    print(json.dumps(config.model_dump(mode="json"), indent=2) if as_json else dump_config(config), end="")
    if as_json:
        print()


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration: every setting, its type, default and meaning.

    \b
    Examples:
      elign config schema > elign.schema.json
    """
    from elign.common.config_load import config_schema

    print(json.dumps(config_schema(), indent=2))
