"""MACE as a ``ForceField``: checks, packing into batches under an edge budget, the network, named failures.

field = MaceForceField.from_folder(folder, device="cpu")
result = field.evaluate(molecules)       # eV, eV/Å; NaN and a name where a molecule failed
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult
from elign.reward_server.budget import cpu_budget, find_budget, is_out_of_memory
from elign.reward_server.checks import DEFAULT_CHECKS, Checks, assemble_result, check_forces, check_structures
from elign.reward_server.cuda_mace import accelerate
from elign.reward_server.fused_convolution import fuse_convolutions
from elign.reward_server.mace_model import graph_input, load_network
from elign.reward_server.packing import count_edges, last_atom, pack, plan_batches, trimmed, unpack


class MaceForceField:
    """A MACE network with its element references; ``evaluate`` never raises for a bad molecule."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        reference_energies: Mapping[int, float],
        *,
        device: torch.device | str = "cpu",
        checks: Checks = DEFAULT_CHECKS,
        max_edges: int | None = None,
    ) -> None:
        """reference_energies: eV by atomic number. max_edges: per batch; None: see ``budget``."""
        self.name = name
        self.reference_energies = dict(reference_energies)
        self.elements = frozenset(self.reference_energies)
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.dtype = next(network.parameters()).dtype
        self.cutoff = float(cast(Tensor, network.r_max))
        self.checks = checks
        table = torch.zeros(120, dtype=torch.float64)
        table[list(self.reference_energies)] = torch.tensor(
            list(self.reference_energies.values()), dtype=torch.float64
        )
        self._references = table
        self.max_edges = max_edges or self._own_budget()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        checks: Checks = DEFAULT_CHECKS,
        max_edges: int | None = None,
    ) -> MaceForceField:
        """Load a folder with ``model.safetensors`` and ``force_field.json``; raises ForceFieldError."""
        network, description = load_network(folder, dtype)
        network = prepare(network, torch.device(device))
        spec = description.spec
        references = dict(zip(spec.elements, spec.reference_energies, strict=True))
        return cls(
            name or folder.name, network, references, device=device, checks=checks, max_edges=max_edges
        )

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        """Energies (float64) and forces (in the network's dtype) of a batch, on the CPU."""
        failures = list(check_structures(molecules, self.elements, self.checks))
        energy = torch.full((len(molecules),), torch.nan, dtype=torch.float64)
        forces = torch.zeros(molecules.positions.shape, dtype=self.dtype)
        good = torch.tensor([i for i, failure in enumerate(failures) if failure is None], dtype=torch.int64)
        ready = self._centred(molecules[good.to(molecules.node_mask.device)])
        batches = plan_batches(count_edges(ready, self.cutoff), self.max_edges)
        while batches:
            chosen = batches.pop(0)
            answer = self._try_batch(ready[chosen.to(self.device)])
            if answer is not None:
                energy[good[chosen]], forces[good[chosen], : answer[1].shape[1]] = answer
            elif len(chosen) > 1:
                batches[:0] = list(chosen.chunk(2))
            else:
                failures[int(good[chosen])] = Failure.TOO_LARGE
        references = self._references_of(molecules)
        for index in check_forces(forces, energy, self.checks.force_limit).nonzero().flatten().tolist():
            failures[index] = failures[index] or Failure.FORCE_LIMIT
        return assemble_result(molecules, energy + references, forces, references, failures)

    def _try_batch(self, molecules: Molecules) -> tuple[Tensor, Tensor] | None:
        """As ``_evaluate_batch``; None when it does not fit into the device's memory.

        A GPU's budget is then halved for good; a CPU's never changes, so that one seed gives one run.
        """
        small = trimmed(molecules, int(last_atom(molecules).max()))
        try:
            return self._evaluate_batch(small)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # out of the handler, which kept the failed batch's tensors alive
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            edges = int(count_edges(small, self.cutoff).sum())
            self.max_edges = max(1, min(self.max_edges, edges) // 2)
        return None

    def _own_budget(self) -> int:
        if self.device.type == "cpu":
            return cpu_budget(self.network, self.dtype)
        return find_budget(self.seconds_of)

    def seconds_of(self, edges: int) -> float:
        """How long a batch of about so many edges takes: the best of four tries after one to warm up."""
        probe = self._centred(_lattice(min(self.elements)))
        copies = max(1, round(edges / int(count_edges(probe, self.cutoff))))
        batch = probe[torch.zeros(copies, dtype=torch.int64, device=self.device)]
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            self._evaluate_batch(batch)
            seconds.append(time.perf_counter() - begin)
        return min(seconds[1:])

    def _centred(self, molecules: Molecules) -> Molecules:
        """On the device and in the dtype of the network, each around its own centroid.

        Centred in double precision, so that a molecule far from the origin loses no digits.
        """
        mask = molecules.node_mask.unsqueeze(-1)
        precise = molecules.positions.double() * mask
        centroid = precise.sum(1) / mask.sum(1).clamp(min=1)
        positions = ((precise - centroid.unsqueeze(1)) * mask).to(self.device, self.dtype)
        return Molecules(
            positions, molecules.atomic_numbers.to(self.device), molecules.node_mask.to(self.device)
        )

    def _evaluate_batch(self, molecules: Molecules) -> tuple[Tensor, Tensor]:
        """([b] energy above the references in eV, [b, N, 3] forces), on the CPU."""
        out = self.network(graph_input(pack(molecules, self.cutoff), self.network))
        forces = unpack(out["forces"].detach(), molecules.node_mask)
        return out["interaction_energy"].detach().double().cpu(), forces.cpu()

    def _references_of(self, molecules: Molecules) -> Tensor:
        """[B] eV in float64; total energies are thousands of eV, too many digits for float32."""
        numbers = molecules.atomic_numbers.cpu().clamp(0, len(self._references) - 1)
        return (self._references[numbers] * molecules.node_mask.cpu()).sum(1)


def prepare(network: nn.Module, device: torch.device) -> nn.Module:
    """A network on ``device`` that says the same in less time, as far as its kind allows."""
    if device.type == "cuda":
        return accelerate(network, device)
    if device.type != "cpu":
        return network.to(device)
    from elign.reward_server.scalar_mace import speed_up  # here: it loads a compiler

    fuse_convolutions(network)
    return speed_up(network)


def _lattice(element: int) -> Molecules:
    """18 atoms 1.5 Å apart: as many as a molecule of QM9, and as close."""
    steps = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(2))
    numbers = torch.full((1, len(steps)), element)
    return Molecules(1.5 * steps.float().unsqueeze(0), numbers, torch.ones_like(numbers, dtype=torch.bool))
