"""What a run reports about an iteration's rollouts: rewards, quality of the molecules, failures.

Sums go over groups in the order of their ids, so the figures do not depend on who sampled what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor

from elign.common.chemistry import canonical_smiles, element_counts, first_occurrences
from elign.common.config import RewardSettings
from elign.common.datasets import get_dataset
from elign.common.geometry import num_pieces
from elign.common.molecules import Molecules
from elign.common.rollout import ScoredTrajectory
from elign.common.scoring import Failure, RewardAnswer
from elign.common.stability import stable_atoms
from elign.learner.advantages import Advantages
from elign.learner.gaming_watch import SHARE_PREFIX

OBJECTIVE = "objective"


def rollout_metrics(
    scored: Sequence[ScoredTrajectory],
    advantages: Sequence[Advantages],
    settings: RewardSettings,
    dataset: str,
) -> dict[str, float]:
    """Figures of one iteration; NaN where nothing could be judged."""
    rewards = [s.rewards for s in scored]
    molecules = Molecules.cat([s.trajectory.molecules for s in scored])
    return {
        **_reward_metrics(rewards, settings),
        **_quality_metrics(molecules, dataset),
        **_failure_metrics(rewards),
        "advantage_zero_fraction": _mean(torch.cat([(a.values[a.valid] == 0).double() for a in advantages])),
        "molecules": float(len(molecules)),
        "sampling_s": sum(s.seconds["sampling"] for s in scored),
        "time_sampling_cpu_s": sum(s.seconds["sampling_cpu"] for s in scored),
    }


def _reward_metrics(rewards: Sequence[RewardAnswer], settings: RewardSettings) -> dict[str, float]:
    """Raw rewards; ``objective`` weighs them as the advantages do and chooses the best policy."""
    force = _mean(torch.cat([r.force[r.force_mask] for r in rewards]))
    stability = _mean(torch.cat([r.stability[r.stability_mask] for r in rewards]))
    rms = _finite(torch.cat([r.rms_force for r in rewards]))
    formation = _mean(_finite(torch.cat([r.formation_energy for r in rewards])))
    weighed = (
        (settings.force_weight, force),
        (settings.stability_weight, stability),
        (settings.energy_weight, -formation),
    )
    return {
        "reward_force": force,
        "reward_energy": _mean(torch.cat([r.energy[r.energy_mask] for r in rewards])),
        "reward_stability": stability,
        "rms_force_mean": _mean(rms.clamp(max=settings.force_clip)),
        "rms_force_median": float(rms.median()) if len(rms) else float("nan"),
        "formation_energy_mean": formation,
        OBJECTIVE: sum(weight * value for weight, value in weighed if weight > 0),
    }


def _quality_metrics(molecules: Molecules, dataset: str) -> dict[str, float]:
    stable, sizes = stable_atoms(molecules, dataset), molecules.num_atoms
    counts = element_counts(molecules)
    smiles = canonical_smiles(molecules, dataset)
    num_valid = sum(name is not None for name in smiles)
    return {
        "atom_stability": float(stable.sum()) / float(sizes.sum()),
        "molecule_stability": _mean((stable == sizes).double()),
        "validity": num_valid / len(molecules),
        "uniqueness": int(first_occurrences(smiles).sum()) / num_valid if num_valid else float("nan"),
        "one_piece": _mean((num_pieces(molecules) == 1).double()),
        **{
            f"{SHARE_PREFIX}{chemical_symbols[z]}": counts.get(z, 0) / float(sizes.sum())
            for z in get_dataset(dataset).atomic_numbers
        },
    }


def _failure_metrics(rewards: Sequence[RewardAnswer]) -> dict[str, float]:
    """One figure for each kind, present in every iteration."""
    counts = Counter(failure for r in rewards for failure in r.failures)
    return {f"failures_{kind.value}": float(counts[kind]) for kind in Failure}


def _finite(values: Tensor) -> Tensor:
    return values[torch.isfinite(values)].double()


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else float("nan")
