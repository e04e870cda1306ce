"""A MACE on a GPU with NVIDIA's cuEquivariance, where that is installed and says the same.

pip install cuequivariance-torch cuequivariance-ops-torch-cu12
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings

import torch
from torch import nn

from elign.reward_server.mace_model import importing_mace
from elign.reward_server.probes import says_the_same

_PACKAGES = ("cuequivariance_torch", "cuequivariance_ops_torch")
log = logging.getLogger("elign")


def accelerate(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on ``device``, its products by cuEquivariance; on another answer than before, as it was."""
    if any(importlib.util.find_spec(name) is None for name in _PACKAGES):
        return network.to(device)
    fast = convert(network, device)
    if says_the_same(fast, network.to(device)):
        return fast
    log.warning("cuEquivariance gives other energies or forces than mace itself, so it is not used")
    return network


def convert(network: nn.Module, device: torch.device) -> nn.Module:
    """mace's own conversion, which leaves torch's settings as they were."""
    default = torch.get_default_dtype()
    with importing_mace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace.cli.convert_e3nn_cueq import run

        try:
            # "cuda" alone makes it fuse its convolutions
            converted: nn.Module = run(copy.deepcopy(network).to(device), device=device.type)
        finally:
            torch.set_default_dtype(default)
    return converted.to(device)
