"""Foundation models by name, fetched and opened by mace-torch's own loaders.

Elign bundles none of them: their licences differ, and their files are pickles, which run code when opened.
So the licence is shown the first time a model is used, and a file's SHA-256 is remembered then: a file that
changes later is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elign.common.errors import ForceFieldError
from elign.common.storage import write_json
from elign.common.user_folder import user_folder
from elign.reward_server.checks import Checks
from elign.reward_server.mace_force_field import MaceForceField, prepare
from elign.reward_server.mace_model import UNRESTRICTED_LOAD, importing_mace

_ACADEMIC = "Academic Software License (non-commercial use only), https://github.com/gabor1/ASL"
_MIT = "MIT"


@dataclass(frozen=True)
class FoundationModel:
    """A public model. family and key: which of mace-torch's loaders, and what it calls the model."""

    name: str
    family: Literal["off", "mp"]
    key: str
    licence: str
    description: str


def _models() -> Iterator[FoundationModel]:
    for size in ("small", "medium", "large"):
        text = f"MACE-OFF23 {size}: organic molecules, H C N O F P S Cl Br I, wB97M-D3"
        yield FoundationModel(f"mace-off23-{size}", "off", size, _ACADEMIC, text)
    for size in ("small", "medium", "large"):
        yield FoundationModel(f"mace-mp-0-{size}", "mp", size, _MIT, f"MACE-MP-0 {size}: 89 elements, PBE")
    yield FoundationModel("mace-mp-0b3-medium", "mp", "medium-0b3", _MIT, "MACE-MP-0b3: 89 elements, PBE")
    yield FoundationModel("mace-mpa-0-medium", "mp", "medium-mpa-0", _MIT, "MACE-MPA-0: 89 elements, PBE")
    for size in ("small", "medium"):
        text = f"MACE-OMAT-0 {size}: 89 elements, PBE"
        yield FoundationModel(f"mace-omat-0-{size}", "mp", f"{size}-omat-0", _ACADEMIC, text)
    for level in ("pbe", "r2scan"):
        text = f"MACE-MATPES {level}: 89 elements"
        yield FoundationModel(f"mace-matpes-{level}-0", "mp", f"mace-matpes-{level}-0", _ACADEMIC, text)


FOUNDATION_MODELS: dict[str, FoundationModel] = {model.name: model for model in _models()}


def load_foundation(
    model: FoundationModel,
    device: torch.device,
    dtype: torch.dtype,
    checks: Checks,
    show_licence: Callable[[str], None],
) -> MaceForceField:
    """Download if need be, check against the remembered hash, open.

    Raises ForceFieldError when the file cannot be fetched, has changed, or is not the kind of MACE expected.
    """
    record = user_folder() / "foundation_models" / f"{model.name}.json"
    if not record.exists():
        show_licence(
            f"{model.name} is not part of Elign; its licence: {model.licence}. Using it accepts that licence."
        )
    path = _fetch(model)
    _check_hash(model, path, record)
    network = _open(model, path)
    references = _reference_energies(model, network)
    network = prepare(network.to(dtype), device)
    return MaceForceField(model.name, network, references, device=device, checks=checks)


def _fetch(model: FoundationModel) -> Path:
    """The model's file in mace-torch's cache, downloaded when it is not there."""
    loaders = _loaders()
    with importing_mace():
        from mace.tools.utils import get_cache_dir

    url = (loaders.mace_off_urls if model.family == "off" else loaders.mace_mp_urls)[model.key]
    name = "".join(c for c in os.path.basename(url) if c.isalnum() or c in "_-.")
    path = Path(get_cache_dir()) / "elign" / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            loaders._urlretrieve_with_timeout(url, str(path))
    except (urllib.error.URLError, OSError) as error:
        raise ForceFieldError(
            f"force field {model.name!r} cannot be fetched from {url} ({error}); connect to the internet, "
            f"or put the file at {path}"
        ) from error
    return path


def _check_hash(model: FoundationModel, path: Path, record: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not record.exists():
        write_json(record, {"name": model.name, "licence": model.licence, "sha256": digest})
        return
    expected = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    if digest != expected:
        raise ForceFieldError(
            f"{path} has SHA-256 {digest}, but {model.name!r} had {expected} when it was first used; "
            "such a file can run code, so it is not opened. Delete it to fetch it again, and also "
            f"{record} if you trust the new one"
        )


def _open(model: FoundationModel, path: Path) -> nn.Module:
    """Open a whole-module pickle the way mace-torch does; only after ``_check_hash``."""
    loaders = _loaders()
    open_model: Any = loaders.mace_off if model.family == "off" else loaders.mace_mp
    with importing_mace():
        os.environ[UNRESTRICTED_LOAD] = "1"  # whole modules; only inside this block
        network = open_model(model=path, device="cpu", return_raw_model=True)
    if type(network).__name__ != "ScaleShiftMACE":
        raise ForceFieldError(f"{path} holds a {type(network).__name__}; Elign can use a ScaleShiftMACE")
    checked: nn.Module = network
    return checked


def _reference_energies(model: FoundationModel, network: nn.Module) -> dict[int, float]:
    """eV by atomic number: the energies of isolated atoms the model was trained with."""
    block: Any = network.atomic_energies_fn
    energies: Tensor = block.atomic_energies.reshape(-1, block.atomic_energies.shape[-1])
    if energies.shape[0] != 1:
        raise ForceFieldError(f"{model.name!r} has {energies.shape[0]} heads; Elign can use models with one")
    numbers: Any = network.atomic_numbers
    return dict(zip(numbers.tolist(), energies[0].double().tolist(), strict=True))


def _loaders() -> Any:
    with importing_mace():
        from mace.calculators import foundations_models
    return foundations_models
