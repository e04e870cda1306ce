"""Force fields by name or path: shipped ones, GFN2-xTB, foundation models that mace-torch knows, any folder,
any ASE calculator.

    field = load_force_field("elign-mace-small")
    other = load_force_field("ase:tblite.ase:TBLite", options={"method": "GFN2-xTB"})
    for entry in list_force_fields(): print(entry.name, entry.kind, entry.licence)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from elign.common.devices import resolve_device
from elign.common.errors import ForceFieldError
from elign.common.scoring import ForceField
from elign.common.user_folder import user_folder
from elign.reward_server.ase_force_field import PREFIX, AseForceField, Option, check_name
from elign.reward_server.checks import Checks
from elign.reward_server.dft import parse_level
from elign.reward_server.dft_force_field import PREFIX as DFT_PREFIX
from elign.reward_server.dft_force_field import DftForceField
from elign.reward_server.foundation import FOUNDATION_MODELS, load_foundation
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import DESCRIPTION_FILE
from elign.reward_server.xtb import Gfn2ForceField

_SHIPPED = Path(__file__).resolve().parent / "assets" / "force_fields"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class ForceFieldEntry:
    """One force field that can be loaded by name. path: None where there is nothing on disk yet."""

    name: str
    kind: Literal["shipped", "user", "method", "calculator", "foundation"]
    licence: str
    description: str
    path: Path | None


def list_force_fields() -> list[ForceFieldEntry]:
    """Every name ``load_force_field`` knows; loads nothing."""
    shipped = [
        ForceFieldEntry(folder.name, "shipped", "Apache-2.0", "small MACE distilled from GFN2-xTB", folder)
        for folder in _folders_in(_SHIPPED)
    ]
    own = [
        ForceFieldEntry(folder.name, "user", "yours", "trained by `elign force-fields train`", folder)
        for folder in _folders_in(_user_force_fields())
    ]
    method = ForceFieldEntry(
        Gfn2ForceField.name,
        "method",
        "LGPL-3.0-or-later (tblite)",
        "semi-empirical GFN2-xTB on the CPU",
        None,
    )
    dft = ForceFieldEntry(
        f"{DFT_PREFIX}LEVEL",
        "method",
        "Apache-2.0 (PySCF)",
        "DFT for few molecules: fast, qm9-level, omol-like, or functional/basis",
        None,
    )
    foundation = [
        ForceFieldEntry(model.name, "foundation", model.licence, model.description, None)
        for model in FOUNDATION_MODELS.values()
    ]
    calculator = ForceFieldEntry(
        f"{PREFIX}MODULE:CLASS", "calculator", "its own", "any ASE calculator, with options", None
    )
    return [*shipped, *own, method, dft, calculator, *foundation]


def load_force_field(
    name_or_path: str,
    device: str = "cpu",
    dtype: Literal["float32", "float64"] = "float32",
    *,
    min_distance: float = Checks.min_distance,
    force_limit: float = Checks.force_limit,
    options: Mapping[str, Option] | None = None,
    show_licence: Callable[[str], None] = print,
) -> ForceField:
    """A force field ready to evaluate.

    name_or_path: a name of ``list_force_fields``, a folder that ``elign force-fields train`` wrote,
    ``dft:LEVEL``, or ``ase:package.module:Class`` with ``options``, the calculator's keyword arguments (its
    device among them).
    device: "cpu", "cuda", "cuda:1", ... or "auto" (CUDA where there is one). min_distance (Å) and
    force_limit (eV/Å): beyond them a molecule is a named failure. show_licence: gets a foundation model's
    licence at its first use. Raises ForceFieldError for an unknown name and for what cannot be loaded,
    ConfigError for an unknown device.
    """
    checks = Checks(min_distance=min_distance, force_limit=force_limit)
    place = resolve_device(device)
    if name_or_path.startswith(PREFIX):
        return AseForceField(name_or_path, options or {}, checks)
    if options:
        raise ForceFieldError(f"force field {name_or_path!r} takes no options, only ase: calculators do")
    if name_or_path.startswith(DFT_PREFIX):
        return DftForceField(name_or_path, checks)
    if name_or_path == Gfn2ForceField.name:
        return Gfn2ForceField(checks=checks)
    if name_or_path in FOUNDATION_MODELS:
        model = FOUNDATION_MODELS[name_or_path]
        return load_foundation(model, place, _DTYPES[dtype], checks, show_licence)
    folder = _find_folder(name_or_path)
    return MaceForceField.from_folder(folder, device=place, dtype=_DTYPES[dtype], checks=checks)


def check_force_field(name_or_path: str) -> None:
    """Raises ForceFieldError, listing the names, when no force field is called so; loads nothing."""
    if name_or_path.startswith(PREFIX):
        check_name(name_or_path)
    elif name_or_path.startswith(DFT_PREFIX):
        parse_level(name_or_path.removeprefix(DFT_PREFIX))
    elif name_or_path != Gfn2ForceField.name and name_or_path not in FOUNDATION_MODELS:
        _find_folder(name_or_path)


def _find_folder(name_or_path: str) -> Path:
    for folder in (_SHIPPED / name_or_path, _user_force_fields() / name_or_path, Path(name_or_path)):
        if (folder / DESCRIPTION_FILE).exists():
            return folder
    if name_or_path.endswith(".model"):
        raise ForceFieldError(
            f"force field {name_or_path!r}: such a file is a pickle, which can run code, so Elign "
            "does not open it. If you trust it, name mace's own calculator, "
            f"ase:mace.calculators:MACECalculator, with the options model_paths={name_or_path}, "
            "default_dtype=float32 and device=cpu or cuda"
        )
    names = ", ".join(entry.name for entry in list_force_fields())
    raise ForceFieldError(
        f"no force field {name_or_path!r}: neither a folder with {DESCRIPTION_FILE} nor one of {names}"
    )


def _folders_in(parent: Path) -> list[Path]:
    return sorted(path.parent for path in parent.glob(f"*/{DESCRIPTION_FILE}"))


def _user_force_fields() -> Path:
    return user_folder() / "force_fields"
