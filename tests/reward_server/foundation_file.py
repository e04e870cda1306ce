"""Files of foundation models where a download would have put them, and a network as such models have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from elign.reward_server.mace_model import import_mace

ELEMENTS = (1, 6, 7, 8, 9)


def save_as_download(network: nn.Module) -> Path:
    """As the file of mace-off23-small, in the cache that ``XDG_CACHE_HOME`` names."""
    path = Path(os.environ["XDG_CACHE_HOME"]) / "mace" / "elign" / "MACE-OFF23_small.model"
    path.parent.mkdir(parents=True)
    torch.save(network, path)
    return path


def vector_network() -> nn.Module:
    """Hidden features with vectors, correlation 3, random weights; single precision, no ZBL repulsion."""
    modules, o3 = import_mace()
    torch.manual_seed(0)
    network: nn.Module = modules.ScaleShiftMACE(
        r_max=4.5,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps("8x0e + 8x1o"),
        MLP_irreps=o3.Irreps("8x0e"),
        atomic_energies=np.array([-13.0, -1000.0, -1500.0, -2000.0, -2700.0]),
        avg_num_neighbors=8.0,
        atomic_numbers=list(ELEMENTS),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return network
