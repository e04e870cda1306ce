"""Quality against the number of denoising steps, before and after post-training at few steps.

    python -m tests.benchmarks.few_steps --run runs/first --run runs/steps25 [-n 256] [--json few_steps.json]

Samples the shipped policy at 25, 50, 100 and 1000 steps, and the best policy of each run at 25, 50 and 100:
the same sizes and random numbers everywhere. Prints Markdown: the table, and the distance to the aim, which
is a policy aligned at few steps that is better than the unaligned one at all 1000; differences are paired,
with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from elign.common.devices import cpu_name
from elign.common.process_memory import keep_freed_memory
from elign.common.progress import show_progress
from elign.evaluation import open_judges
from elign.learner.evaluate import Evaluation, compare, evaluate_molecules
from elign.learner.evaluation_table import evaluation_json
from elign.samples import draw_sizes, open_policy, sample_sizes

BASELINE = "elign-qm9-small"
STEPS = (25, 50, 100, 1000)
ROWS = (
    ("gfn2-xtb.rms_force", "mean RMS force by GFN2-xTB, eV/Å", 1.0, 2),
    ("atom_stability", "stable atoms, %", 100.0, 1),
    ("molecule_stability", "stable molecules, %", 100.0, 1),
    ("validity_x_uniqueness", "validity x uniqueness, %", 100.0, 1),
)


def judge(name: str, steps: int, number: int, seed: int) -> tuple[Evaluation, float]:
    """The evaluation of a policy at so many steps, and the seconds a molecule took."""
    source = open_policy(name, device="cpu", num_steps=steps)
    sizes = draw_sizes(source.policy, number, seed)
    started = time.perf_counter()
    with show_progress(f"{name}, {steps} steps") as progress:
        molecules = sample_sizes(source, sizes, seed=seed, progress=progress)
    seconds = (time.perf_counter() - started) / number
    # beside the shipped force field, GFN2-xTB counts energies from that one's element references
    _, gfn2 = open_judges(["elign-mace-small", "gfn2-xtb"], source.policy.spec.dataset, device="cpu")
    verdicts = {gfn2.name: gfn2.evaluate}
    return evaluate_molecules(molecules, source.policy.spec.dataset, verdicts, seed=seed), seconds


def table_row(name: str, steps: int, result: Evaluation, seconds: float) -> str:
    cells = [f"{scale * result.summary[key].estimate:.{digits}f}" for key, _, scale, digits in ROWS]
    return f"| {name} | {steps} | {' | '.join(cells)} | {1e3 * seconds:.0f} |"


def distance(label: str, aligned: Evaluation, baseline: Evaluation, seed: int) -> list[str]:
    """The differences of one policy at few steps from the baseline at all steps."""
    differences = compare(baseline, aligned, seed=seed).differences
    lines = [f"\n{label} minus {BASELINE} at {STEPS[-1]} steps:\n"]
    for key, name, scale, digits in ROWS:
        change = differences[key]
        low, high = (f"{scale * value:+.{digits}f}" for value in (change.low, change.high))
        lines.append(f"- {name}: {scale * change.estimate:+.{digits}f} ({low} to {high})")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", action="append", required=True, help="run directory of elign train")
    parser.add_argument("-n", "--number", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every figure with its interval")
    given = parser.parse_args()
    keep_freed_memory()

    print(f"{cpu_name()}; {given.number} molecules in each row\n")
    print(f"| policy | steps | {' | '.join(label for _, label, _, _ in ROWS)} | ms a molecule |")
    print(f"|---|---:|{'---:|' * (len(ROWS) + 1)}", flush=True)
    found: dict[tuple[str, int], Evaluation] = {}
    for name in (BASELINE, *given.run):
        for steps in STEPS if name == BASELINE else STEPS[:-1]:
            found[name, steps], seconds = judge(name, steps, given.number, given.seed)
            print(table_row(name, steps, found[name, steps], seconds), flush=True)
    for run in given.run:
        trained_with = open_policy(run, device="cpu").num_steps
        label = f"{run} at {trained_with} steps"
        lines = distance(label, found[run, trained_with], found[BASELINE, STEPS[-1]], given.seed)
        print("\n".join(lines), flush=True)
    if given.json is not None:
        figures: dict[str, Any] = {f"{n}@{s}": evaluation_json(result) for (n, s), result in found.items()}
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
