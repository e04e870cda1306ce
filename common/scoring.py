"""What a force field answers, and what the reward server makes of it: data that travels between rooms.

Units are eV, Å and eV/Å. A molecule that could not be judged has NaN and a named ``Failure``; no other
molecule of the batch suffers, and nobody invents a number for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from elign.common.compact_pickle import CompactPickle
from elign.common.molecules import Molecules


class Failure(StrEnum):
    """Why a molecule has no energy."""

    NON_FINITE = "non_finite_coordinates"
    TOO_FEW_ATOMS = "fewer_than_two_atoms"
    UNSUPPORTED_ELEMENT = "unsupported_element"
    ATOMS_TOO_CLOSE = "atoms_too_close"
    SEVERAL_PIECES = "several_pieces"
    FORCE_LIMIT = "force_beyond_limit"
    NOT_CONVERGED = "not_converged"
    CALCULATION_FAILED = "calculation_failed"
    TOO_LARGE = "too_large_for_the_device"
    TOO_MANY_ATOMS = "too_many_atoms"
    TIME_LIMIT = "time_limit"
    WORKER_DIED = "worker_died"


@dataclass(frozen=True)
class ForceFieldResult(CompactPickle):
    """Answers for a batch of B molecules padded to N atoms.

    energy: [B] eV, float64. forces: [B, N, 3] eV/Å, 0 where padded. formation_energy: [B] eV/atom, float64:
    (energy - sum of the force field's element reference energies) / number of atoms.
    failures: B entries, None where all went well; all three are NaN where not None (padding stays 0).
    """

    energy: Tensor
    forces: Tensor
    formation_energy: Tensor
    failures: tuple[Failure | None, ...]

    def rms_force(self, node_mask: Tensor) -> Tensor:
        """[B] eV/Å: root of the mean over the molecule's atoms of |F_i|²."""
        squared = self.forces.square().sum(-1) * node_mask
        return (squared.sum(1) / node_mask.sum(1).clamp(min=1)).sqrt()


class ForceField(Protocol):
    """Whatever gives energies and forces of a batch; the one interface of all backends."""

    name: str

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers it knows."""
        ...

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies and forces; bad molecules become named failures, never exceptions."""
        ...


@dataclass(frozen=True)
class Relaxation:
    """B relaxed molecules; NaN and False where one failed; its positions are those that were refused.

    energy_drop: [B] eV/atom from the first to the last geometry. rmsd: [B] Å between them, rotation and
    translation taken out. steps: [B] int64. converged: [B] bool, the largest force below the limit.
    bonds_kept: [B] bool, the same atoms bonded as before (EDM's tables). failures: B entries.
    """

    molecules: Molecules
    energy_drop: Tensor
    rmsd: Tensor
    steps: Tensor
    converged: Tensor
    bonds_kept: Tensor
    failures: tuple[Failure | None, ...]


@dataclass(frozen=True)
class RewardQuery:
    """One group's molecules to be judged.

    group_id: for logs and idempotence. molecules: K final molecules.
    times: T'+1 descending times of the trained part, times[0] the branch state, times[-1] = 0.
    potential_steps: P ascending indices into the T' transitions whose predicted clean molecule (of the state
    the transition starts from) is judged too; the first is 0. Empty if the energy channel is off or terminal.
    predicted: P*K molecules, step-major: those predicted clean molecules.
    """

    group_id: int
    molecules: Molecules
    times: tuple[int, ...]
    potential_steps: tuple[int, ...]
    predicted: Molecules


@dataclass(frozen=True)
class RewardAnswer(CompactPickle):
    """Rewards of one group of K samples over T' trained transitions, before any normalization.

    force, force_mask: [K]. energy: [T', K] return-to-go of the energy channel; energy_mask: [T', K].
    stability: [K] fraction of atoms that are stable and in the largest piece, less the penalties that are
    switched on; stability_mask: [K] bool.
    A value whose mask is False is 0 and means nothing.
    rms_force [K] eV/Å (unclipped) and formation_energy [K] eV/atom: NaN where failed, for reports.
    stable: [K] bool, every atom stable. failures: K entries.
    """

    force: Tensor
    force_mask: Tensor
    energy: Tensor
    energy_mask: Tensor
    stability: Tensor
    stability_mask: Tensor
    rms_force: Tensor
    formation_energy: Tensor
    stable: Tensor
    failures: tuple[Failure | None, ...]
