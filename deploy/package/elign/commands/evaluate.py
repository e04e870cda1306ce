"""``elign evaluate``: how good a policy is, beside a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elign.commands.options import Device, PolicyName, Seed, Steps


def evaluate(
    policy: PolicyName,
    baseline: Annotated[
        str | None, typer.Option(help="Another policy, judged on the same sizes and seeds, with differences.")
    ] = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=2, help="Molecules sampled from each policy.")
    ] = 256,
    seed: Seed = 0,
    steps: Steps = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures to this JSON file.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Molecules that count as known for novelty: qm9, or a file of molecules or SMILES."
        ),
    ] = None,
    force_field: Annotated[
        str, typer.Option(help="Force field that judges besides GFN2-xTB.")
    ] = "elign-mace-small",
    device: Device = "auto",
) -> None:
    """Sample and judge molecules: stability, validity, uniqueness, energy, forces, with 95 % intervals.

    With --baseline also warns by name where the policy may have learned its force field's mistakes: a gap
    between force field and GFN2-xTB, drifting elements, fragments, repeated molecules.

    \b
    Examples:
      elign evaluate --policy runs/first --baseline elign-qm9-small -n 256 --json result.json
      elign evaluate --policy elign-qm9-small -n 1000 --steps 100 --seed 3
      elign evaluate --policy runs/first --reference qm9
    """
    from elign.common.progress import show_progress
    from elign.common.storage import write_json
    from elign.evaluation import evaluate_policies, evaluation_as_json, gaming_alarms, print_evaluation
    from elign.samples import open_policy

    trained = open_policy(policy, device=device, num_steps=steps)
    # A baseline gets the same number of steps, or the difference would be that of the samplers.
    before = None if baseline is None else open_policy(baseline, device=device, num_steps=trained.num_steps)
    result = evaluate_policies(
        trained,
        before,
        number=number,
        seed=seed,
        force_fields=[force_field, "gfn2-xtb"],
        reference=reference,
        device=device,
        show_progress=show_progress,
    )
    print_evaluation(result, f"{policy}, {trained.num_steps} steps, seed {seed}")
    alarms = gaming_alarms(result, force_field)
    for alarm, text in alarms.items():
        print(f"warning: {alarm}: {text}")
    if json_file is not None:
        settings = {"policy": policy, "compared_with": baseline, "seed": seed, "steps": trained.num_steps}
        write_json(json_file, settings | evaluation_as_json(result) | {"alarms": alarms})
