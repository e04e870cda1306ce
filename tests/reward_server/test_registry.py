"""Force fields by name and path, and what a foundation model's first and second use do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elign.common.errors import ConfigError, ForceFieldError
from elign.common.molecules import Molecules
from elign.reward_server import foundation
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import load_network
from elign.reward_server.registry import list_force_fields, load_force_field
from elign.reward_server.xtb import Gfn2ForceField
from tests.reward_server.foundation_file import save_as_download


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIGN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_kind_is_listed() -> None:
    names = {entry.name for entry in list_force_fields()}
    assert {"elign-mace-small", "gfn2-xtb", "mace-off23-small", "mace-mp-0-small"} <= names


def test_a_folder_is_loaded_by_its_path(tiny_folder: Path) -> None:
    field = load_force_field(str(tiny_folder), min_distance=0.5, force_limit=7.0)
    assert isinstance(field, MaceForceField)
    assert (field.checks.min_distance, field.checks.force_limit) == (0.5, 7.0)
    assert field.elements == {1, 6, 7, 8, 9}


def test_the_methods_name_gives_the_method() -> None:
    assert isinstance(load_force_field("gfn2-xtb"), Gfn2ForceField)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ForceFieldError, match=r"no force field 'nothing'.*gfn2-xtb"):
        load_force_field("nothing")


def test_an_unknown_device_is_an_error(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="gpu"):
        load_force_field(str(tiny_folder), device="gpu")


@pytest.fixture
def cached_model(tiny_folder: Path) -> Path:
    """A foundation model's file where a download would have put it."""
    return save_as_download(load_network(tiny_folder, torch.float32)[0])


@pytest.mark.usefixtures("cached_model")
def test_a_foundation_model_shows_its_licence_once_and_answers_as_its_network(
    tiny_folder: Path, molecules: Molecules
) -> None:
    shown: list[str] = []
    field = load_force_field("mace-off23-small", show_licence=shown.append)
    again = load_force_field("mace-off23-small", show_licence=shown.append)
    assert len(shown) == 1
    assert "non-commercial" in shown[0]
    expected = load_force_field(str(tiny_folder)).evaluate(molecules)
    for result in (field.evaluate(molecules), again.evaluate(molecules)):
        torch.testing.assert_close(result.forces, expected.forces)
        torch.testing.assert_close(result.formation_energy, expected.formation_energy)


def test_a_foundation_models_file_that_changed_is_not_opened(cached_model: Path) -> None:
    load_force_field("mace-off23-small", show_licence=print)
    cached_model.write_bytes(b"something that would run code")
    with pytest.raises(ForceFieldError, match="SHA-256"):
        load_force_field("mace-off23-small")


def test_a_model_that_cannot_be_fetched_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, path: str) -> None:
        raise OSError(f"no route to {url}, nothing at {path}")

    monkeypatch.setattr(foundation._loaders(), "_urlretrieve_with_timeout", offline)
    with pytest.raises(ForceFieldError, match=r"mace-mp-0-small.*internet"):
        load_force_field("mace-mp-0-small", show_licence=print)
