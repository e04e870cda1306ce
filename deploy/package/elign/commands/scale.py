"""``elign scale``: another number of rollout actors for a run that is going on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def scale(
    run_dir: Annotated[Path, typer.Argument(help="Run directory of a run that is going on.")],
    actors: Annotated[
        int, typer.Option("--actors", min=1, help="Rollout actors, from actors.min to actors.max.")
    ],
) -> None:
    """Change the number of rollout actors of a running training, from any shell that sees its directory.

    New actors join when they are ready, superfluous ones finish what they have; training goes on meanwhile.

    \b
    Examples:
      elign scale runs/first --actors 1
      elign scale runs/first --actors 8
    """
    from elign.common.run_control import request_actors

    request_actors(run_dir, actors)
    print(f"asked for {actors} actors; see: elign status {run_dir}")
