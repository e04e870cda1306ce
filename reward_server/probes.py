"""Does a changed network still say what it said? Energies and forces of clusters of all its elements."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from elign.common.molecules import Molecules
from elign.reward_server.mace_model import graph_input
from elign.reward_server.packing import pack

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
"""Of energies (eV) and forces (eV/Å), relative to 1 + the largest."""
_PROBES = 4
_SIDE, _SPACING, _SHAKE = 3, 1.5, 0.15  # Å; nothing so close that repulsion drowns the rest


def says_the_same(changed: nn.Module, network: nn.Module) -> bool:
    """Whether two MACEs of one dtype, on one device, agree on the probes."""
    elements = cast(Tensor, network.atomic_numbers).cpu()
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    sites = torch.cartesian_prod(torch.arange(_SIDE), torch.arange(_SIDE), torch.arange(1))
    shape = (_PROBES, len(sites))
    positions = _SPACING * sites + _SHAKE * torch.randn(*shape, 3, generator=generator)
    numbers = elements[torch.arange(_PROBES * len(sites)) % len(elements)].view(shape)
    probes = Molecules(positions.to(parameter.dtype), numbers, torch.ones_like(numbers, dtype=torch.bool))
    graph = pack(probes.to(parameter.device), float(cast(Tensor, network.r_max)))
    found, expected = (model(graph_input(graph, model)) for model in (changed, network))
    allowed = TOLERANCE[parameter.dtype]
    return all(
        bool(((found[key] - expected[key]).abs() <= allowed * (1 + expected[key].abs().max())).all())
        for key in ("interaction_energy", "forces")
    )
