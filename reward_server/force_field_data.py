"""Labelled structures as tensors: molecules with energies and forces, split by source molecule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elign.common.errors import DataError
from elign.common.molecules import Molecules
from elign.reward_server.labels import Label
from elign.reward_server.packing import count_edges
from elign.reward_server.structures import EQUILIBRIUM_KINDS

_SLACK = 1e-6  # keeps the fit of reference energies solvable when an element always comes in one proportion


@dataclass(frozen=True)
class LabelledMolecules:
    """M structures. energy: [M] eV, float64. forces: [M, N, 3] eV/Å. kinds: M names. source: [M] int64."""

    molecules: Molecules
    energy: Tensor
    forces: Tensor
    kinds: tuple[str, ...]
    source: Tensor

    def __len__(self) -> int:
        return len(self.molecules)

    def select(self, index: Tensor) -> LabelledMolecules:
        """The structures at ``index`` ([m] int64)."""
        kinds = tuple(self.kinds[i] for i in index.tolist())
        return LabelledMolecules(
            self.molecules[index], self.energy[index], self.forces[index], kinds, self.source[index]
        )

    def rms_force(self) -> Tensor:
        """[M] eV/Å."""
        mean_square: Tensor = self.forces.square().sum((1, 2)) / self.molecules.num_atoms
        rms: Tensor = mean_square.sqrt()
        return rms

    def largest_force(self) -> Tensor:
        """[M] eV/Å, of the atom with the largest force."""
        length: Tensor = torch.linalg.vector_norm(self.forces, dim=-1)
        return length.amax(1)


def from_labels(labels: Sequence[Label]) -> LabelledMolecules:
    """Padded tensors out of labels. Raises DataError when there are none."""
    if not labels:
        raise DataError(
            "no structure could be labelled; the data set is empty or GFN2-xTB failed on all of it"
        )
    molecules = Molecules.from_lists([x.atomic_numbers for x in labels], [x.positions for x in labels])
    forces = torch.zeros_like(molecules.positions)
    for i, label in enumerate(labels):
        forces[i, : len(label.forces)] = torch.from_numpy(label.forces)
    energy = torch.tensor([label.energy for label in labels], dtype=torch.float64)
    source = torch.tensor([label.source for label in labels])
    return LabelledMolecules(molecules, energy, forces, tuple(label.kind for label in labels), source)


def split_by_source(data: LabelledMolecules, every: int) -> tuple[LabelledMolecules, LabelledMolecules]:
    """(training, held-out): all structures made from every ``every``-th source are held out."""
    held_out = data.source % every == 0
    return data.select((~held_out).nonzero().flatten()), data.select(held_out.nonzero().flatten())


def fit_reference_energies(data: LabelledMolecules, elements: Sequence[int]) -> tuple[float, ...]:
    """eV per element: least squares of the energies of the near-equilibrium structures on their composition.

    Against these a molecule's formation energy is what it has above a typical relaxed one of its
    composition, so that a policy gains nothing by exchanging elements. Raises DataError for an element that
    never occurs.
    """
    relaxed = torch.tensor([kind in EQUILIBRIUM_KINDS for kind in data.kinds])
    numbers = data.molecules.atomic_numbers[relaxed]
    composition = torch.stack([(numbers == z).sum(1) for z in elements], dim=1).double()
    missing = [z for z, count in zip(elements, composition.sum(0).tolist(), strict=True) if count == 0]
    if missing:
        raise DataError(f"no near-equilibrium training molecule has an atom of atomic number {missing}")
    normal = composition.T @ composition + _SLACK * torch.eye(len(elements), dtype=torch.float64)
    solution = torch.linalg.solve(normal, composition.T @ data.energy[relaxed])
    return tuple(solution.tolist())


def average_neighbours(data: LabelledMolecules, cutoff: float) -> float:
    """Mean number of atoms within the cut-off (Å) of an atom."""
    edges = count_edges(data.molecules, cutoff).sum()
    return float(edges / data.molecules.num_atoms.sum())
