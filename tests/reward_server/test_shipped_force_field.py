"""The force field that comes with Elign imitates GFN2-xTB well enough to reward: calm before strained."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.stats import spearmanr

from elign.common.molecules import Molecules
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import ForceFieldDescription, read_description
from elign.reward_server.pair_scan import NO_CHECKS, scan_pairs
from elign.reward_server.registry import list_force_fields, load_force_field

NAMES = ("CH4", "C2H6", "C2H4", "CH3OH", "H2CO", "CH3CN", "C3H8", "CH3CHO", "C2H2", "NH3")


def displaced(scales: tuple[float, ...]) -> Molecules:
    rng = np.random.default_rng(0)
    numbers, positions = [], []
    for name in NAMES:
        atoms = molecule(name)
        for scale in scales:
            numbers.append(atoms.numbers)
            positions.append(atoms.positions + rng.normal(scale=scale, size=atoms.positions.shape))
    return Molecules.from_lists(numbers, positions)


def test_it_ranks_strain_as_gfn2_does() -> None:
    molecules = displaced((0.01, 0.03, 0.05, 0.08))
    own = load_force_field("elign-mace-small").evaluate(molecules)
    judge = load_force_field("gfn2-xtb").evaluate(molecules)
    assert own.failures == judge.failures == (None,) * len(molecules)
    ranks = spearmanr(own.rms_force(molecules.node_mask), judge.rms_force(molecules.node_mask))
    assert ranks.statistic > 0.85


@pytest.mark.parametrize("pair", [(1, 1), (1, 6), (6, 6), (6, 8), (7, 8), (9, 9)])
def test_short_distances_repel(pair: tuple[int, int]) -> None:
    distances = np.linspace(0.45, 0.65, 5)
    molecules = Molecules.from_lists(
        [np.array(pair)] * 5, [np.array([[0, 0, 0], [d, 0, 0]]) for d in distances]
    )
    result = load_force_field("elign-mace-small", force_limit=1e4).evaluate(molecules)
    assert torch.equal(result.forces[:, 1, 0] > 0, torch.ones(5, dtype=torch.bool))


def test_it_is_small_and_has_a_card() -> None:
    entry = next(entry for entry in list_force_fields() if entry.name == "elign-mace-small")
    assert entry.path is not None
    assert sum(file.stat().st_size for file in entry.path.iterdir()) < 1_000_000
    card = (entry.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# elign-mace-small")
    assert "Licence" in card


def test_its_held_out_errors_are_no_worse_than_its_card_says() -> None:
    """Those of the training that made it, kind by kind."""
    rows = description().metadata["held_out"]["by_kind"]
    calm = rows["data and relaxed"]
    assert calm["force_mae"] < 0.06
    assert calm["rms_force_spearman"] > 0.89
    assert calm["energy_mae_mev_per_atom"] < 5
    displaced = [row for kind, row in rows.items() if kind.startswith("displaced") and row["structures"] > 9]
    assert len(displaced) >= 4
    assert all(row["force_mae_percent"] < 10 for row in displaced)
    for before in ("policy25", "policy50", "policy100", "second-policy50"):
        assert rows[before]["rms_force_spearman"] > 0.95
    for after in ("aligned25", "aligned50", "aligned100"):
        assert rows[after]["rms_force_spearman"] > 0.95


def test_no_pair_of_elements_has_a_hole() -> None:
    entry = next(entry for entry in list_force_fields() if entry.name == "elign-mace-small")
    assert entry.path is not None
    field = MaceForceField.from_folder(entry.path, checks=NO_CHECKS)
    scans = scan_pairs(field, np.arange(0.3, 5.01, 0.025), description().spec.elements)
    assert [hole for scan in scans for hole in scan.holes()] == []


def description() -> ForceFieldDescription:
    entry = next(entry for entry in list_force_fields() if entry.name == "elign-mace-small")
    assert entry.path is not None
    return read_description(entry.path)
