"""How good a force field is, and where: held-out errors by kind and by size of force, and the model card.

One global figure hides what matters: near equilibrium forces are a thousandth of those in wreckage, and
that is where good samples end up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from elign.common.storage import write_text
from elign.reward_server.checks import Checks
from elign.reward_server.force_field_data import LabelledMolecules
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import MaceSpec
from elign.reward_server.structures import CALM_KINDS, KINDS

FORCE_BINS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Edges in eV/Å of the label's RMS force."""


def held_out_errors(
    network: nn.Module,
    spec: MaceSpec,
    held_out: LabelledMolecules,
    max_force: float,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Errors by kind of structure and by RMS force of the label.

    Structures that the checks refuse, or with a label's force beyond ``max_force`` (eV/Å), are only counted.
    """
    references = dict(zip(spec.elements, spec.reference_energies, strict=True))
    field = MaceForceField("held-out", network, references, device=device, checks=Checks())
    result = field.evaluate(held_out.molecules)
    judged = torch.tensor([failure is None for failure in result.failures])
    judged &= held_out.largest_force() <= max_force
    rms = held_out.rms_force()
    by_kind, by_force = {}, {}
    for name, kinds in _rows(held_out.kinds).items():
        of_kind = torch.tensor([kind in kinds for kind in held_out.kinds])
        row = _errors(held_out, result.energy, result.forces, of_kind & judged)
        by_kind[name] = row | {"left_out": int((of_kind & ~judged).sum())}
    for low, high in pairwise(FORCE_BINS):
        chosen = judged & (rms >= low) & (rms < high)
        by_force[f"{low:g}-{high:g}"] = _errors(held_out, result.energy, result.forces, chosen)
    return {"by_kind": by_kind, "by_rms_force": by_force}


def _rows(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The rows of the table by kind, and which kinds each is made of."""
    found = set(kinds)
    made = [kind for kind in KINDS if kind in found]
    sampled = sorted(found - set(KINDS))
    pooled = {"data and relaxed": CALM_KINDS} if found & set(CALM_KINDS) else {}
    return pooled | {kind: (kind,) for kind in (*made, *sampled)}


def _errors(data: LabelledMolecules, energy: Tensor, forces: Tensor, chosen: Tensor) -> dict[str, Any]:
    """Figures of the chosen structures; forces as components, RMS force per structure."""
    count = int(chosen.sum())
    if count < 3:
        return {"structures": count}
    mask = data.molecules.node_mask[chosen]
    target, found = data.forces[chosen][mask], forces[chosen][mask]
    num_atoms = mask.sum(1)
    rms = data.rms_force()[chosen]
    found_rms = (forces[chosen].square().sum((1, 2)) / num_atoms).sqrt()
    energy_error = (energy[chosen] - data.energy[chosen]).abs() / num_atoms
    mean_force = float(target.abs().mean())
    force_error = float((found - target).abs().mean())
    return {
        "structures": count,
        "median_rms_force": round(float(rms.median()), 3),
        "force_mae": round(force_error, 4),
        "force_mae_percent": round(100 * force_error / mean_force, 1),
        "rms_force_spearman": round(float(spearmanr(rms, found_rms).statistic), 3),
        "energy_mae_mev_per_atom": round(1000 * float(energy_error.mean()), 1),
    }


def write_card(path: Path, name: str, spec: MaceSpec, metadata: dict[str, Any]) -> None:
    """The model card, README.md beside the weights."""
    write_text(
        path,
        _CARD.format(
            name=name,
            channels=spec.channels,
            layers=spec.num_layers,
            r_max=spec.r_max,
            command=metadata["command"],
            origin=_origin(metadata["started_from"]),
            seed=metadata["settings"]["seed"],
            max_force=metadata["settings"]["max_force"],
            training=metadata["training_structures"],
            held_out=metadata["held_out_structures"],
            minutes=metadata["training_minutes"],
            machine=metadata["training_machine"],
            by_kind=_table("kind", metadata["held_out"]["by_kind"]),
            by_force=_table("RMS force, eV/Å", metadata["held_out"]["by_rms_force"]),
        ),
    )


def _origin(metadata: dict[str, Any] | None) -> str:
    """One more line of the card where training started from another force field."""
    if metadata is None:
        return ""
    return (
        f"\n- It started from a force field made by `{metadata['command']}` "
        f"({metadata['training_structures']} structures, {metadata['training_minutes']} minutes)."
    )


def _table(first_column: str, rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"| {first_column} | structures | median RMS force | force MAE (eV/Å) | % of mean force "
        "| Spearman of RMS force | energy (meV/atom) | left out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = (
        "structures",
        "median_rms_force",
        "force_mae",
        "force_mae_percent",
        "rms_force_spearman",
        "energy_mae_mev_per_atom",
        "left_out",
    )
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines)


_CARD = """# {name}

A small MACE ({channels} scalar channels, {layers} layers, cut-off {r_max} Å, ZBL repulsion) for molecules of
H, C, N, O and F, distilled from GFN2-xTB. It is the reward of `elign train`: quick, and trained on wreckage
as well as on relaxed molecules.

## Training

- Labels: GFN2-xTB by tblite (energies and forces of neutral molecules in their lowest spin).
- Structures: {training} for training, {held_out} held out (what was made from one molecule is on one side):
  near equilibrium (data: as in the data set; relaxed by GFN2-xTB; near: 0.01 to 0.05 Å from either),
  displaced by 0.02 to 0.4 Å, broken (elements, hydrogens, bonds), and, under the names given with
  `--samples`, what policies made: as it was, and displaced or on its way to the nearest minimum (near ...).
- Command: `{command}`{origin}
- Seed {seed}; {minutes} minutes of training by the clock, on {machine}.

Reference energies are fitted to near-equilibrium molecules; a formation energy near 0 is typical of those.

## Held-out errors

Force errors are of components. Structures that the checks refuse (several pieces, atoms too close, forces
beyond the limit), or with a label's force beyond {max_force:g} eV/Å, are left out. Energies are per atom.

{by_kind}

{by_force}

## Limits

- Five elements, neutral molecules, nothing periodic.
- Sizes like QM9's (up to 29 atoms); larger molecules are extrapolation.
- It inherits GFN2-xTB's own errors; judge final samples with GFN2-xTB or DFT, not with this model.
- Beyond about 30 eV/Å of RMS force it only says "very bad".

## Licence

Weights: Apache-2.0. Labels made with tblite (LGPL-3.0-or-later). Geometries derived from QM9 (Ramakrishnan et
al., Scientific Data 1, 140022, 2014).
"""
