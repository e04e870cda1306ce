"""``elign evaluate``: how good molecules are, beside a baseline and beside real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elign.commands.options import Device, Seed, Steps

if TYPE_CHECKING:
    from elign.reward_server.dft_batch import DftSettings


def evaluate(
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            help="Name of a policy, policy folder, run directory, or a file of molecules (.xyz, .sdf, ...).",
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Another policy, judged on the same sizes and seeds, with differences.")
    ] = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=2, help="Molecules of each policy or file.")
    ] = 256,
    seed: Seed = 0,
    steps: Steps = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures to this JSON file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html, result.json, table.tex, molecules and DFT answers."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Molecules that count as known for novelty: qm9, or a file of molecules or SMILES."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Real molecules, qm9 or a file: what distances are from, and judged alike."),
    ] = None,
    force_field: Annotated[
        str, typer.Option(help="Force field that judges besides GFN2-xTB.")
    ] = "elign-mace-small",
    relax: Annotated[
        str | None, typer.Option(metavar="FORCE_FIELD", help="Relax the molecules by this force field.")
    ] = None,
    dft: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help="DFT: fast, qm9-level, omol-like, or functional/basis; needs --out."
        ),
    ] = None,
    dft_n: Annotated[int, typer.Option(min=1, help="Molecules of each side for DFT, the first ones.")] = 64,
    dft_workers: Annotated[
        int | None, typer.Option(min=1, help="DFT processes; by default one a core.")
    ] = None,
    dft_minutes: Annotated[float, typer.Option(min=0.01, help="Time limit of a molecule.")] = 30.0,
    speed: Annotated[bool, typer.Option("--speed", help="Time both policies, in turns.")] = False,
    device: Device = "auto",
) -> None:
    """Judge molecules: stability, validity, diversity, energy, forces, with 95 % intervals.

    Warns by name where the policy may have learned its force field's mistakes, or repeats itself. An
    interrupted evaluation with --out goes on where it was when it is started again.

    \b
    Examples:
      elign evaluate --policy runs/first --baseline elign-qm9-small -n 256 --json result.json
      elign evaluate --policy elign-qm9-small -n 1000 --steps 100 --seed 3
      elign evaluate --policy runs/first --reference qm9
      elign evaluate --policy runs/first --baseline elign-qm9-small --data qm9 --relax gfn2-xtb --out proof
      elign evaluate --policy runs/first --baseline elign-qm9-small --data qm9 --dft fast --out proof
      elign evaluate --policy other-generator.sdf --baseline elign-qm9-small --dft pbe0/def2-svp --out other
    """
    from elign.commands.interruption import resumable
    from elign.common.progress import show_progress
    from elign.common.storage import write_json
    from elign.evaluation import EvaluationPlan, evaluate_sources
    from elign.evaluation_output import print_outcome, write_outcome
    from elign.learner.evaluation_outcome import outcome_json
    from elign.samples import PolicySource, open_source

    trained = open_source(policy, device=device, num_steps=steps)
    # A baseline gets the same number of steps, or the difference would be that of the samplers.
    own_steps = trained.num_steps if isinstance(trained, PolicySource) else steps
    before = None if baseline is None else open_source(baseline, device=device, num_steps=own_steps)
    plan = EvaluationPlan(
        number=number,
        seed=seed,
        device=device,
        force_fields=list(dict.fromkeys([force_field, "gfn2-xtb"])),
        reference=reference,
        data=data,
        dft=None if dft is None else _dft_settings(dft, dft_n, dft_workers, dft_minutes),
        relax=relax,
        speed=speed,
        folder=out,
    )
    with resumable("the same command again (what is in --out is not repeated)"):
        outcome = evaluate_sources(trained, before, plan, show_progress)
    print_outcome(outcome, f"{policy}, {own_steps or 'no'} steps, seed {seed}")
    settings = {"policy": policy, "compared_with": baseline, "seed": seed, "steps": own_steps}
    if json_file is not None:
        write_json(json_file, settings | outcome_json(outcome))
    if out is not None:
        write_outcome(out, outcome, plan, [trained, *([before] if before else [])], settings)
        print(f"report.html, result.json and table.tex in {out}")


def _dft_settings(level: str, number: int, workers: int | None, minutes: float) -> DftSettings:
    from elign.reward_server.dft import parse_level
    from elign.reward_server.dft_batch import DftSettings, default_workers

    return DftSettings(parse_level(level), number, workers or default_workers(), 60 * minutes)
