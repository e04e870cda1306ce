"""More layers for a trained MACE: at first they change nothing, so training goes on from what it knows."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from elign.reward_server.mace_model import MaceSpec, build_network


def deepen(network: nn.Module, spec: MaceSpec, num_layers: int) -> tuple[nn.Module, MaceSpec]:
    """A network of ``num_layers`` layers with the energies and forces of ``network``, and its specification.

    The layers are added at the end: features pass them by their skip connections unchanged, their messages
    are multiplied by zero, and what reads out a layer before the last reads zero. Those zeros have gradients;
    all else of a new layer is random (torch's global generator). network: built by ``spec``, not fused, on
    the CPU; num_layers: at least as many as it has.
    """
    old, last = network.state_dict(), spec.num_layers - 1
    deeper = spec.model_copy(update={"num_layers": num_layers})
    grown = build_network(deeper, next(network.parameters()).dtype)
    state = grown.state_dict()
    for name, value in old.items():
        state[name.replace(f"readouts.{last}.", f"readouts.{num_layers - 1}.")].copy_(value)
    layers = cast(Any, grown)
    for number in range(spec.num_layers, num_layers):
        nn.init.zeros_(layers.readouts[number - 1].linear.weight)
        nn.init.zeros_(layers.products[number].linear.weight)
        _pass_unchanged(layers.interactions[number].skip_tp, spec.channels, len(spec.elements))
    return grown, deeper


def _pass_unchanged(skip: Any, channels: int, num_elements: int) -> None:
    """Make a skip connection, a map of the channels for each element, the identity."""
    identity = torch.eye(channels, dtype=skip.weight.dtype)
    with torch.no_grad():
        skip.weight.copy_(identity[:, None].expand(channels, num_elements, channels).flatten())
        features = torch.ones(1, channels, dtype=skip.weight.dtype)
        element = torch.eye(num_elements, dtype=skip.weight.dtype)[:1]
        normalization = cast(Tensor, skip(features, element))[0, 0]
        skip.weight.div_(normalization)
