"""Density functional theory by PySCF: energy and forces of one molecule, or the name of what went wrong.

Density fitting, neutral, the lowest spin its electrons allow (a doublet for an odd number). A self-consistent
field that does not converge is tried again with a level shift, then with a second-order solver.

    level = parse_level("fast")                        # or "qm9-level", "omol-like", "pbe0/def2-svp", ...
    answer = single_point(level, numbers, positions)   # DftAnswer or Failure

``fast`` is the functional of QM9 in a smaller basis: for QM9's sizes some 12 s of one core for energy and
forces, of which its coarse grid costs 1 meV a molecule and 1 meV/Å. It was quicker than PBE/def2-SVP, and
its forces at QM9's geometries, which are stationary points of that functional, are nearer to zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols, ground_state_magnetic_moments
from ase.units import Bohr, Hartree

from elign.common.errors import ForceFieldError
from elign.common.scoring import Failure

Solver = Literal["diis", "level_shift", "second_order"]
_HEAVIEST = 86
_HEAVIEST_ALL_ELECTRON = 36
"""Beyond krypton the basis sets that are meant here come with an effective core potential."""
_TOLERANCE = 1e-8
_LEVEL_SHIFT = 0.3


@dataclass(frozen=True)
class DftLevel:
    """functional and basis by PySCF's names; grid_level: 0 (coarse) to 9 of its integration grids."""

    functional: str
    basis: str
    grid_level: int = 3

    @property
    def label(self) -> str:
        """Says all that decides the numbers: ``b3lyp/6-31g*, grid 1``."""
        return f"{self.functional}/{self.basis}, grid {self.grid_level}"


PRESETS = {
    "fast": DftLevel("b3lyp", "6-31g*", grid_level=1),
    "qm9-level": DftLevel("b3lyp", "6-31g(2df,p)"),
    "omol-like": DftLevel("wb97m-v", "def2-tzvpd"),
}


@dataclass(frozen=True)
class DftAnswer:
    """energy in eV. forces: [n, 3] eV/Å. solver: which attempt converged."""

    energy: float
    forces: np.ndarray
    solver: Solver


def parse_level(name: str) -> DftLevel:
    """The level of a preset's name or of ``functional/basis``; raises ForceFieldError for anything else."""
    if name in PRESETS:
        return PRESETS[name]
    functional, separator, basis = name.lower().partition("/")
    level = DftLevel(functional.strip(), basis.strip())
    if not separator or not level.functional or not level.basis:
        raise ForceFieldError(
            f"DFT level {name!r}: wanted {', '.join(PRESETS)}, or functional/basis such as pbe0/def2-svp"
        )
    dft = _pyscf().dft
    try:
        dft.libxc.parse_xc(level.functional)
    except (KeyError, ValueError) as error:
        raise ForceFieldError(f"DFT level {name!r}: PySCF knows no functional {functional!r}") from error
    if not _has_basis(level.basis, 1):
        raise ForceFieldError(f"DFT level {name!r}: PySCF knows no basis {basis!r}")
    return level


def known_elements(level: DftLevel, numbers: Iterable[int]) -> frozenset[int]:
    """Those of the atomic numbers that the level's basis has."""
    return frozenset(z for z in set(numbers) if 1 <= z <= _HEAVIEST and _has_basis(level.basis, z))


def single_point(level: DftLevel, numbers: np.ndarray, positions: np.ndarray) -> DftAnswer | Failure:
    """Energy and forces; numbers: [n], positions: [n, 3] in Å. A lone atom is in its ground state.

    Runs on the threads that PySCF was given, on a GPU where gpu4pyscf is installed and there is one. Raises
    ForceFieldError when PySCF is missing.
    """
    field = _field(level, numbers, positions)
    solver = _converge(field)
    if solver is None:
        return Failure.NOT_CONVERGED
    if len(numbers) == 1:
        forces = np.zeros((1, 3))
    else:
        forces = -_on_host(field.nuc_grad_method().kernel()) * (Hartree / Bohr)
    return DftAnswer(float(field.e_tot) * Hartree, forces, solver)


def lowest_spin(numbers: np.ndarray) -> int:
    """Unpaired electrons of a neutral molecule: none or one; of a lone atom those of its ground state."""
    if len(numbers) == 1:
        return round(float(ground_state_magnetic_moments[int(numbers[0])]))
    return int(np.sum(numbers)) % 2


def runs_on_gpu() -> bool:
    """Whether gpu4pyscf is installed and finds a GPU."""
    if find_spec("gpu4pyscf") is None:
        return False
    import torch

    return torch.cuda.is_available()


def pyscf_version() -> str:
    """Raises ForceFieldError when PySCF is missing."""
    return str(_pyscf().__version__)


def _field(level: DftLevel, numbers: np.ndarray, positions: np.ndarray) -> Any:
    """The self-consistent field problem, not solved yet."""
    pyscf = _pyscf()
    spin = lowest_spin(numbers)
    symbols = [chemical_symbols[int(z)] for z in numbers]
    heavy = {symbol for symbol, z in zip(symbols, numbers, strict=True) if z > _HEAVIEST_ALL_ELECTRON}
    molecule = pyscf.gto.M(
        atom=list(zip(symbols, np.asarray(positions, dtype=np.float64).tolist(), strict=True)),
        basis=level.basis,
        ecp=dict.fromkeys(heavy, level.basis),
        spin=spin,
        verbose=0,
    )
    method = pyscf.dft.UKS if spin else pyscf.dft.RKS
    field = method(molecule, xc=level.functional).density_fit()
    field.grids.level = level.grid_level
    field.conv_tol = _TOLERANCE
    return field.to_gpu() if runs_on_gpu() else field


def _converge(field: Any, cycles: tuple[int, int, int] = (60, 150, 50)) -> Solver | None:
    """Solve in place; cycles: the most that DIIS, the level shift and the second-order solver may take."""
    field.max_cycle = cycles[0]
    field.kernel()
    if field.converged:
        return "diis"
    field.max_cycle, field.level_shift = cycles[1], _LEVEL_SHIFT
    field.kernel(dm0=field.make_rdm1())
    field.level_shift = 0.0
    if field.converged:
        return "level_shift"
    second = field.newton()
    second.max_cycle = cycles[2]
    second.kernel(field.mo_coeff, field.mo_occ)
    for name in ("e_tot", "mo_coeff", "mo_energy", "mo_occ", "converged"):
        setattr(field, name, getattr(second, name))
    return "second_order" if field.converged else None


@cache
def _has_basis(basis: str, number: int) -> bool:
    gto = _pyscf().gto
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF advertises another package for what it does not find
        try:
            gto.basis.load(basis, chemical_symbols[number])
        except (KeyError, ValueError, RuntimeError):
            return False
    return True


def _on_host(array: Any) -> np.ndarray:
    return np.asarray(array.get() if hasattr(array, "get") else array, dtype=np.float64)


def _pyscf() -> Any:
    # Imported here: it loads slowly, and only DFT needs it.
    try:
        import pyscf
        import pyscf.dft
        import pyscf.gto
    except ImportError as error:
        raise ForceFieldError(
            f"DFT needs PySCF, which cannot be imported ({error}): pip install pyscf"
        ) from error
    return pyscf
