"""``elign scale``: another number of rollout actors for a run that is going on."""

from __future__ import annotations

from typing import Annotated

import typer

from elign.commands.targets import ClusterOfRun, RemoteRun, Target, locate


def scale(
    run: Target,
    actors: Annotated[
        int, typer.Option("--actors", min=1, help="Rollout actors, from actors.min to actors.max.")
    ],
    address: ClusterOfRun = None,
) -> None:
    """Change the number of rollout actors of a running training, from any shell.

    New actors join when they are ready, superfluous ones finish what they have; training goes on meanwhile.

    \b
    Examples:
      elign scale runs/first --actors 1
      elign scale elign-first-1a2b3c4d --actors 8
    """
    from elign.common.errors import ConfigError
    from elign.common.remote_folder import is_uri, run_copy
    from elign.common.run_control import request_actors

    place = locate(run, address)
    if isinstance(place, RemoteRun):
        print(place.ask("scale", "--actors", str(actors)), end="")
        return
    folder = run_copy(place)
    if is_uri(place) and not folder.exists():
        raise ConfigError(
            f"the run of {place} is not on this machine; name the cluster that has its job with --address"
        )
    request_actors(folder, actors)
    print(f"asked for {actors} actors; see: elign status {run}")
