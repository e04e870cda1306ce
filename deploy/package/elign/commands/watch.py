"""``elign watch``: a run's curves and throughput in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer


def watch(
    run_dir: Annotated[str, typer.Argument(help="Folder of a run, going on or ended, or its URI.")],
    once: Annotated[bool, typer.Option("--once", help="Print the present state and end.")] = False,
) -> None:
    """Show a run's curves, throughput and alarms, until it ends.

    It only reads files, so it can be left with Ctrl-C and started again at any time.

    \b
    Examples:
      elign watch runs/first
      elign watch runs/first --once
      elign watch s3://bucket/runs/first
    """
    from rich.console import Console

    from elign.learner.run_mirror import run_figures
    from elign.monitoring.live_view import draw, follow_run, read_run

    console = Console()
    with run_figures(run_dir) as (folder, refresh):
        if once or not console.is_terminal:
            console.print(draw(read_run(folder)))
            return
        try:
            follow_run(folder, console, refresh=refresh)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
