"""Structures, cached labels, and a force field trained to completion on a handful of molecules."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.errors import CheckpointError, DataError
from elign.common.molecules import Molecules
from elign.reward_server import labels as labels_module
from elign.reward_server.force_field_data import fit_reference_energies, from_labels, split_by_source
from elign.reward_server.force_field_optimizer import ForceFieldOptimizer
from elign.reward_server.force_field_settings import ForceFieldTrainingSettings
from elign.reward_server.force_field_training import (
    fit,
    force_errors,
    rate_factor,
    repeat_samples,
    rms_by_molecule,
    structure_loss,
    train_force_field,
)
from elign.reward_server.labels import Label, label_structure, label_structures
from elign.reward_server.mace_model import MaceSpec, build_network, graph_input, load_network
from elign.reward_server.packing import pack
from elign.reward_server.registry import load_force_field
from elign.reward_server.structures import (
    EQUILIBRIUM_KINDS,
    KINDS,
    Structure,
    make_structures,
    sample_structures,
)

COUNTS = {"equilibrium": 12, "displaced": 6, "broken": 6}
METHANE = (
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
    ),
)
HYDROGEN_CYANIDE = (np.array([1, 6, 7]), np.array([[0, 0, -1.06], [0, 0, 0], [0, 0, 1.16]]))
FLUOROMETHANOL = (
    np.array([6, 8, 1, 1, 9, 1]),
    np.array(
        [
            [-0.05, 0.66, 0.0],
            [-0.05, -0.76, 0.0],
            [-1.09, 0.98, 0.0],
            [0.44, 1.07, 0.89],
            [0.6, 1.2, -1.1],
            [0.86, -1.06, 0.0],
        ]
    ),
)
CLEAN = [METHANE, HYDROGEN_CYANIDE, FLUOROMETHANOL, METHANE]
TINY = ForceFieldTrainingSettings(
    equilibrium=12,
    displaced=6,
    broken=6,
    pairs=1,
    held_out_every=4,
    channels=16,
    radial_width=8,
    epochs=3,
    batch_size=4,
    warmup_steps=2,
    checkpoint_every=2,
)
SPEC = MaceSpec(reference_energies=(-13.0, -50.0, -72.0, -105.0, -127.0), channels=16, radial_width=8)


def clean_molecules() -> Molecules:
    return Molecules.from_lists([z for z, _ in CLEAN], [x for _, x in CLEAN])


def test_structures_are_the_same_for_one_seed_and_of_every_kind() -> None:
    first, second = (make_structures(CLEAN, COUNTS, np.random.default_rng(3)) for _ in range(2))
    calm, displaced = EQUILIBRIUM_KINDS, [kind for kind in KINDS if kind.startswith("displaced")]
    of = {"equilibrium": calm, "displaced": displaced, "broken": ["broken"]}
    assert {family: sum(s.kind in kinds for s in first) for family, kinds in of.items()} == COUNTS
    assert any(s.relax for s in first)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.atomic_numbers, b.atomic_numbers)


def test_broken_structures_keep_numbers_and_positions_in_step() -> None:
    for structure in make_structures(CLEAN, {"broken": 300}, np.random.default_rng(0)):
        assert structure.positions.shape == (len(structure.atomic_numbers), 3)
        assert len(structure.atomic_numbers) >= 2
        assert np.isfinite(structure.positions).all()


def test_policy_samples_are_labelled_as_they_are_and_near_by() -> None:
    structures = sample_structures("policy", CLEAN, 100, np.random.default_rng(0))
    own = [s for s in structures if s.kind == "policy"]
    assert [s.source for s in own] == [100, 101, 102, 103]
    for structure, (numbers, positions) in zip(own, CLEAN, strict=True):
        assert np.array_equal(structure.atomic_numbers, numbers)
        assert np.array_equal(structure.positions, positions)
    near = [s for s in structures if s.kind == "near policy"]
    assert [s.source for s in near] == [100, 101, 102, 103]
    assert all(s.relax or not np.array_equal(s.positions, CLEAN[s.source - 100][1]) for s in near)


def test_an_epoch_repeats_what_a_policy_made() -> None:
    kinds = ("data", "policy", "near policy", "broken")
    labels = [replace(label_of(source=i, energy=0.0), kind=kind) for i, kind in enumerate(kinds)]
    repeated = repeat_samples(from_labels(labels), 3)
    assert repeated.source.tolist() == [0, 1, 1, 1, 2, 2, 2, 3]


def test_relaxing_gives_a_minimum_and_two_structures_near_it() -> None:
    start = METHANE[1] + 0.05 * np.random.default_rng(0).standard_normal((5, 3))
    found = label_structure(Structure("relaxed", 0, METHANE[0], start, relax=True))
    assert [label.kind for label in found] == ["near", "relaxed", "near"]
    assert np.abs(found[1].forces).max() < 0.02
    assert found[1].energy < found[0].energy
    assert found[1].energy < found[2].energy


def test_labels_are_read_back_instead_of_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    structures = make_structures(CLEAN, {"displaced": 5}, np.random.default_rng(0))
    first = label_structures(structures, tmp_path, processes=1)
    monkeypatch.setattr(labels_module, "label_structure", None)
    second = label_structures(structures, tmp_path, processes=1)
    assert len(first) == len(second) == 5
    for a, b in zip(first, second, strict=True):
        assert a.energy == b.energy
        np.testing.assert_array_equal(a.forces, b.forces)


def test_only_parts_that_are_missing_are_labelled_and_the_order_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "PART_SIZE", 4)
    structures = make_structures(CLEAN, {"displaced": 14}, np.random.default_rng(0))
    alone = label_structures(structures, tmp_path / "alone", processes=1)
    shared = tmp_path / "shared"
    label_structures(structures[4:8], shared, processes=1)
    seen: list[tuple[int, int]] = []
    found = label_structures(structures, shared, processes=2, progress=lambda *step: seen.append(step))
    assert seen == [(4, 14), (8, 14), (12, 14), (14, 14)]
    assert [label.energy for label in found] == pytest.approx([label.energy for label in alone], abs=1e-6)
    assert len(list(shared.iterdir())) == 4


def test_a_damaged_label_file_is_named(tmp_path: Path) -> None:
    structures = make_structures(CLEAN, {"displaced": 2}, np.random.default_rng(0))
    label_structures(structures, tmp_path, processes=1)
    part = next(tmp_path.glob("labels_*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=part.name):
        label_structures(structures, tmp_path, processes=1)


def test_no_source_is_on_both_sides_of_the_split() -> None:
    data = from_labels([label_of(source=i % 7, energy=float(i)) for i in range(30)])
    training, held_out = split_by_source(data, 3)
    assert set(held_out.source.tolist()) == {0, 3, 6}
    assert not set(training.source.tolist()) & set(held_out.source.tolist())
    assert len(training) + len(held_out) == 30


def test_beyond_the_limit_a_force_need_only_be_large() -> None:
    target = torch.tensor([[1.0, 0, 0], [100.0, 0, 0], [100.0, 0, 0], [100.0, 0, 0]])
    forces = torch.tensor([[0.0, 1.0, 0], [80.0, 5.0, 0], [20.0, 0, 0], [-10.0, 0, 0]])
    assert force_errors(forces, target, 60.0).tolist() == pytest.approx([2**0.5, 0.0, 40.0, 70.0])


def test_rms_force_of_packed_molecules_and_its_slope_at_rest() -> None:
    forces = torch.tensor([[3.0, 0, 0], [0, 4.0, 0], [1.0, 2.0, 2.0], [0, 0, 0]], requires_grad=True)
    rms = rms_by_molecule(forces, torch.tensor([0, 0, 1, 2]), torch.tensor([2, 1, 1]))
    assert rms.tolist() == pytest.approx([12.5**0.5, 3.0, 0.0], abs=0.011)
    rms.sum().backward()  # type: ignore[no-untyped-call]
    assert forces.grad is not None
    assert bool(forces.grad.isfinite().all())


def test_loss_counts_the_error_of_the_rms_force_with_its_weight() -> None:
    pull = np.array([[0.0, 0, 2.0], *[[0.0, 0, -0.5]] * 4])  # an RMS force of 1 eV/Å
    batch = from_labels([Label("data", 0, *METHANE, -300.0, pull)])
    torch.manual_seed(0)
    network = build_network(SPEC, torch.float32)
    references = torch.tensor(SPEC.reference_energies, dtype=torch.float64)
    losses = [
        structure_loss(
            network, SPEC, batch, references, TINY.model_copy(update={"rms_force_weight": w}), "cpu"
        ).item()
        for w in (0.0, 1.0, 3.0)
    ]
    packed = pack(batch.molecules, SPEC.r_max)
    forces = network(graph_input(packed, network))["forces"]
    rms = float(forces.square().sum(-1).mean().sqrt())
    expected = abs(rms - 1.0) / (TINY.softening + 1.0)
    assert losses[1] - losses[0] == pytest.approx(expected, abs=0.01)
    assert losses[2] - losses[0] == pytest.approx(3 * expected, abs=0.03)


def test_reference_energies_recover_an_additive_energy() -> None:
    per_element = {1: -13.5, 6: -50.25, 7: -71.0, 8: -105.5, 9: -127.0}
    rng = np.random.default_rng(0)
    labels = []
    for i in range(40):
        numbers = rng.choice(list(per_element), size=8)
        energy = sum(per_element[int(z)] for z in numbers)
        labels.append(Label("data", i, numbers, rng.standard_normal((8, 3)), energy, np.zeros((8, 3))))
    fitted = fit_reference_energies(from_labels(labels), (1, 6, 7, 8, 9))
    assert fitted == pytest.approx(tuple(per_element.values()), abs=1e-3)


def test_learning_rates_warm_up_and_falls() -> None:
    rates = [rate_factor(TINY, step, 100) for step in range(100)]
    assert 0 < rates[0] < rates[1] == 1
    assert rates[-1] < 0.02
    assert all(a >= b for a, b in pairwise(rates[1:]))


def test_interrupted_training_ends_where_uninterrupted_training_ends(tmp_path: Path) -> None:
    data = from_labels([label_of(source=i, energy=-200.0 - i) for i in range(12)])
    whole = fit(TINY, SPEC, fresh(), data, tmp_path / "whole")
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fit(
            TINY,
            SPEC,
            fresh(),
            data,
            tmp_path / "stopped",
            progress=lambda done, *_: stop_at(5, done, seen),
        )
    resumed = fit(TINY, SPEC, fresh(), data, tmp_path / "stopped")
    for a, b in zip(whole.averaged.parameters(), resumed.averaged.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)
    assert seen == [1, 2, 3, 4, 5]


def test_layers_of_a_network_are_trained_matrix_by_matrix() -> None:
    network = fresh()
    optimizer = ForceFieldOptimizer(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step(muon_rate=0.1, adam_rate=0.0)
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert {
        "interactions.1.linear.weight",
        "interactions.0.skip_tp.weight",
        "products.0.linear.weight",
    } <= moved
    assert not {"node_embedding.linear.weight", "readouts.0.linear.weight"} & moved
    update = dict(network.named_parameters())["products.0.linear.weight"] - before["products.0.linear.weight"]
    scales = torch.linalg.svdvals(update.detach().view(16, 16)) / (0.1 * 0.2 * 4)  # rate, RMS of AdamW, size
    assert 0.5 < float(scales.min()) < float(scales.max()) < 1.5
    optimizer.step(muon_rate=0.0, adam_rate=0.1)
    assert all(not torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = from_labels([label_of(source=i, energy=-200.0 - i) for i in range(8)])
    fit(TINY, SPEC, fresh(), data, tmp_path / "training")
    with pytest.raises(CheckpointError, match="other settings"):
        fit(TINY.model_copy(update={"learning_rate": 1e-4}), SPEC, fresh(), data, tmp_path / "training")


def test_training_goes_on_longer_and_on_a_machine_with_other_cores(tmp_path: Path) -> None:
    data = from_labels([label_of(source=i, energy=-200.0 - i) for i in range(8)])
    first = fit(TINY, SPEC, fresh(), data, tmp_path / "training")
    longer = TINY.model_copy(update={"epochs": TINY.epochs + 1, "processes": 7})
    assert fit(longer, SPEC, fresh(), data, tmp_path / "training").step == first.step + len(data) // 4


def test_a_whole_run_writes_a_field_that_loads_with_its_card(tmp_path: Path) -> None:
    samples = Molecules.from_lists([METHANE[0]] * 4, [METHANE[1] * scale for scale in (0.9, 1.0, 1.1, 1.2)])
    out = tmp_path / "field"
    metadata = train_force_field(
        TINY, clean_molecules(), {"policy": samples}, out, command="elign force-fields train ..."
    )
    assert set(metadata["held_out"]["by_kind"]) >= {"data", "data and relaxed", "policy"}
    assert json.loads((out / "force_field.json").read_text())["metadata"] == metadata
    card = (out / "README.md").read_text()
    assert "elign force-fields train ..." in card
    assert f"{os.cpu_count()} CPU cores, torch with {torch.get_num_threads()} of them" in card
    result = load_force_field(str(out)).evaluate(clean_molecules())
    assert result.failures == (None,) * 4
    further = TINY.model_copy(update={"initial": str(out), "epochs": 1})
    second = train_force_field(further, clean_molecules(), {}, tmp_path / "second", command="again")
    assert second["started_from"] == metadata
    assert (
        load_network(tmp_path / "second", torch.float32)[1].spec == load_network(out, torch.float32)[1].spec
    )


def stop_at(step: int, done: int, seen: list[int]) -> None:
    seen.append(done)
    if done == step:
        raise KeyboardInterrupt


def fresh() -> torch.nn.Module:
    """The same random network each time."""
    torch.manual_seed(0)
    return build_network(SPEC, torch.float32)


def label_of(source: int, energy: float) -> Label:
    rng = np.random.default_rng(source)
    positions = METHANE[1] + 0.05 * rng.standard_normal((5, 3))
    return Label("data", source, METHANE[0], positions, energy, rng.standard_normal((5, 3)))
