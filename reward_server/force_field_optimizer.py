"""The optimizer of force fields: Muon for the wide linear maps of a MACE, Adam for the rest.

Muon orthogonalizes the momentum of a matrix before it is applied (Jordan et al. 2024). e3nn keeps a layer's
matrices in one flat vector; here each is a parameter of its own that shares its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from elign.common.training_state import read_moments, write_moments

_WIDE = 16
"""Maps from or to fewer channels (elements, radial functions, energies) are Adam's."""

Split = Callable[[Tensor], list[Tensor]]


class ForceFieldOptimizer:
    """Both optimizers as one; the network's gradients are there when ``step`` is called."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._split = _splits(network)
        self._owners = {name: p for name, p in network.named_parameters() if name in self._split}
        self._matrices = nn.ParameterList(
            nn.Parameter(matrix)
            for name, owner in self._owners.items()
            for matrix in self._split[name](owner.detach())
        )
        rest = [p for name, p in network.named_parameters() if name not in self._split]
        self._muon = torch.optim.Muon(self._matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.Adam(rest, amsgrad=True)

    def step(self, *, muon_rate: float, adam_rate: float) -> None:
        """One step along the gradients that the network's parameters have."""
        gradients = [g for name, p in self._owners.items() for g in self._split[name](cast(Tensor, p.grad))]
        for matrix, gradient in zip(self._matrices, gradients, strict=True):
            matrix.grad = gradient
        for optimizer, rate in ((self._muon, muon_rate), (self._adam, adam_rate)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()  # type: ignore[no-untyped-call]

    def read(self) -> dict[str, Tensor]:
        """Copies of all moments, keyed ``muon/number/field`` and ``adam/parameter/field``."""
        moments = {"muon": read_moments(self._muon, self._matrices)}
        moments["adam"] = read_moments(self._adam, self._network)
        return {f"{kind}/{key}": value for kind, some in moments.items() for key, value in some.items()}

    def write(self, moments: Mapping[str, Tensor]) -> None:
        """Put back what ``read`` gave. Raises CheckpointError where names or shapes do not fit."""
        parts: dict[str, dict[str, Tensor]] = {"muon": {}, "adam": {}}
        for key, value in moments.items():
            kind, name = key.split("/", 1)
            parts.setdefault(kind, {})[name] = value
        write_moments(self._muon, self._matrices, parts["muon"])
        write_moments(self._adam, self._network, parts["adam"])


def _splits(network: nn.Module) -> dict[str, Split]:
    """How the weight of each layer of wide linear maps, by its name, is cut into matrices [in, out]."""
    found: dict[str, Split] = {}
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.numel() == 0:
            continue
        split = partial(_layer_matrices, module) if hasattr(module, "weight_views") else _itself
        if all(matrix.ndim == 2 and min(matrix.shape) >= _WIDE for matrix in split(weight)):
            found[f"{name}.weight"] = split
    return found


def _layer_matrices(layer: nn.Module, weight: Tensor) -> list[Tensor]:
    """Of an e3nn layer's flat weight: one matrix a path, and one an element where the path has elements."""
    views = cast(Callable[[Tensor], list[Tensor]], layer.weight_views)(weight)
    return [matrix for view in views for matrix in (view.unbind(1) if view.ndim == 3 else [view])]


def _itself(weight: Tensor) -> list[Tensor]:
    return [weight]
