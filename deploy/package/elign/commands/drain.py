"""``elign drain``: a node of a cluster is emptied before its machine goes."""

from __future__ import annotations

from typing import Annotated

import typer

from elign.commands.options import LOCAL_CLUSTER, Address


def drain(
    node: Annotated[
        str, typer.Argument(help="Its id or the beginning of it, its address, or its host name.")
    ],
    deadline: Annotated[
        int, typer.Option("--deadline", min=1, metavar="SECONDS", help="When the machine will be gone.")
    ] = 120,
    address: Address = LOCAL_CLUSTER,
) -> None:
    """Empty a node of a cluster: rollout actors there finish what they have, and are replaced elsewhere.

    Waits until no actor is left on the node; then its machine may be switched off. What is still there at the
    deadline is named, and the exit code is 1.

    \b
    Examples:
      elign drain 10.0.0.7 --deadline 120
      elign drain 3f2a90 --deadline 60 --address http://head:8265
    """
    from elign.jobs.connection import connect
    from elign.jobs.drain import drain as empty

    print(f"node {empty(connect(address), node, deadline)} is empty")
