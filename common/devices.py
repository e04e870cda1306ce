"""Which device a user's word stands for, and what this machine is."""

from __future__ import annotations

import os
import platform

import torch

from elign.common.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` is the first GPU, or the CPU where there is none.

    Raises ConfigError for a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not one torch knows; use auto, cpu or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r}: this machine has {torch.cuda.device_count()} GPUs; use auto or cpu"
        )
    return chosen


def cpu_name() -> str:
    """This machine's processor architecture and number of cores, as reports say what they were made on."""
    return f"{platform.machine()}, {os.cpu_count()} CPU cores"
