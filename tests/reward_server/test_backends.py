"""Every backend keeps the validator's promises, and the validator sees a backend that does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule

from elign.common.errors import ForceFieldError
from elign.common.molecule_io import from_ase
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceField, ForceFieldResult
from elign.reward_server.ase_force_field import AseForceField
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import load_network
from elign.reward_server.registry import check_force_field, load_force_field
from elign.reward_server.validator import Tolerances, validate_force_field
from elign.reward_server.xtb import Gfn2ForceField
from tests.reward_server.foundation_file import save_as_download, vector_network

TBLITE = "ase:tblite.ase:TBLite"
Backend = Callable[[Path], ForceField]
BACKENDS: dict[str, tuple[Backend, Tolerances]] = {
    "mace, single precision": (lambda folder: load_force_field(str(folder)), Tolerances()),
    "mace, double precision": (
        lambda folder: load_force_field(str(folder), dtype="float64"),
        Tolerances(energy=1e-9, force=1e-9, gradient=1e-3),
    ),
    "shipped mace": (lambda _: load_force_field("elign-mace-small"), Tolerances()),
    "gfn2-xtb": (lambda _: load_force_field("gfn2-xtb"), Tolerances(force=5e-3)),
    "gfn2-xtb by tblite's ASE calculator": (
        lambda _: load_force_field(TBLITE, options={"method": "GFN2-xTB", "verbosity": 0}),
        Tolerances(force=5e-3),
    ),
    "ASE's EMT": (lambda _: load_force_field("ase:ase.calculators.emt:EMT"), Tolerances()),
    "ASE's Morse potential": (
        lambda _: load_force_field(
            "ase:ase.calculators.morse:MorsePotential", options={"epsilon": 0.5, "r0": 1.2, "rcut1": 3.0}
        ),
        Tolerances(),
    ),
    "a foundation model with vectors, by name": (lambda _: _foundation_model(), Tolerances()),
    "dft": (lambda _: load_force_field("dft:pbe/sto-3g"), Tolerances(force=5e-3)),
}
SLOW = {"dft"}


def _foundation_model() -> ForceField:
    """Opened as a download of that name is: what is in the file is a network of that kind, not that model."""
    save_as_download(vector_network())
    return load_force_field("mace-off23-small", show_licence=print)


def organic() -> Molecules:
    """Small molecules, shaken out of their symmetry."""
    names = ("CH4", "H2O", "CH3OH", "HCN")
    found = from_ase([ase_molecule(name) for name in names])
    noise = 0.05 * torch.randn(found.positions.shape, generator=torch.Generator().manual_seed(0))
    positions = (found.positions + noise) * found.node_mask.unsqueeze(-1)
    return Molecules(positions, found.atomic_numbers, found.node_mask)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BACKENDS]
)
def test_every_backend_keeps_the_promises(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELIGN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build, tolerances = BACKENDS[name]
    validate_force_field(build(tiny_folder), organic(), tolerances)


class Careless(MaceForceField):
    """Gives every molecule an energy that depends on its place in the batch."""

    def evaluate(self, molecules: Molecules) -> ForceFieldResult:
        result = super().evaluate(molecules)
        place = torch.arange(len(molecules), dtype=torch.float64)
        return ForceFieldResult(
            result.energy + place, result.forces, result.formation_energy, result.failures
        )


def test_the_validator_says_what_is_broken(tiny_folder: Path) -> None:
    careless = Careless.from_folder(tiny_folder)
    with pytest.raises(ForceFieldError, match="a molecule's answer is the same alone") as caught:
        validate_force_field(careless, organic())
    assert "gradient" not in str(caught.value)


def test_tblites_ase_calculator_agrees_with_the_method_itself() -> None:
    molecules = organic()
    theirs = AseForceField(TBLITE, {"method": "GFN2-xTB", "verbosity": 0}).evaluate(molecules)
    ours = Gfn2ForceField().evaluate(molecules)
    torch.testing.assert_close(theirs.energy, ours.energy, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.forces, ours.forces, rtol=0, atol=1e-4)


def test_an_element_that_a_calculator_refuses_is_named_alone() -> None:
    field = load_force_field("ase:ase.calculators.emt:EMT")
    silane = Molecules.from_lists([np.array([14, 1])], [np.array([[0.0, 0, 0], [0, 0, 1.5]])])
    result = field.evaluate(Molecules.cat([organic(), silane]))
    assert result.failures == (None, None, None, None, Failure.UNSUPPORTED_ELEMENT)
    assert 14 not in field.elements


def test_a_calculation_that_fails_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "touchy.py").write_text(
        "from ase.calculators.calculator import CalculationFailed\n"
        "from ase.calculators.lj import LennardJones\n"
        "class Touchy(LennardJones):\n"
        "    def calculate(self, atoms=None, properties=None, system_changes=()):\n"
        "        if len(atoms) == 3:\n"
        "            raise CalculationFailed('three is a crowd')\n"
        "        if len(atoms) == 5:\n"
        "            raise TypeError('a defect')\n"
        "        super().calculate(atoms, properties, system_changes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    field = load_force_field("ase:touchy:Touchy", options={"sigma": 1.0})
    few = Molecules.cat([organic()[[3]], organic()[[2]]])  # of 3 and 6 atoms
    assert field.evaluate(few).failures == (Failure.CALCULATION_FAILED, None)
    with pytest.raises(ForceFieldError, match="TypeError: a defect"):
        field.evaluate(organic()[[0]])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ase:tblite.ase", {}, "ase:package.module:Class"),
        ("ase:no_such_package.ase:Thing", {}, "no_such_package"),
        ("ase:tblite.ase:NoSuchThing", {}, "NoSuchThing"),
        ("ase:ase.calculators.singlepoint:SinglePointCalculator", {}, "no options.*atoms"),
        ("ase:pathlib:Path", {}, "no ASE calculator"),
        ("elign-mace-small", {"method": "x"}, "takes no options"),
    ],
)
def test_what_is_no_calculator_is_one_clear_error(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ForceFieldError, match=message):
        load_force_field(name, options=options)


def test_an_ase_name_is_checked_without_loading_it() -> None:
    check_force_field("ase:installed.elsewhere:Calculator")
    with pytest.raises(ForceFieldError, match="ase:package"):
        check_force_field("ase:nothing")


def test_a_model_file_is_not_opened_but_by_maces_own_calculator(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.model"
    torch.save(load_network(tiny_folder, torch.float64)[0], path)
    with pytest.raises(ForceFieldError, match=r"pickle.*ase:mace\.calculators:MACECalculator"):
        load_force_field(str(path))
    options = {"model_paths": str(path), "default_dtype": "float64", "device": "cpu"}
    field = load_force_field("ase:mace.calculators:MACECalculator", options=options)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    expected = load_force_field(str(tiny_folder), dtype="float64").evaluate(organic())
    torch.testing.assert_close(field.evaluate(organic()).energy, expected.energy, rtol=0, atol=1e-8)
