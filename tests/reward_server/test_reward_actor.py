"""The reward server as a Ray actor on a small real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from elign.common.config import RewardSettings
from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, RewardQuery
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.reward_actor import start_reward_server
from elign.reward_server.rewards import compute_rewards


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("r")
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False)
    yield
    ray.shutdown()


def make_query(molecules: Molecules, group_id: int) -> RewardQuery:
    noise = 0.05 * torch.randn(molecules.positions.shape, generator=torch.Generator().manual_seed(group_id))
    positions = (molecules.positions + noise) * molecules.node_mask.unsqueeze(-1)
    final = Molecules(positions, molecules.atomic_numbers, molecules.node_mask)
    return RewardQuery(group_id, final, (300, 200, 100, 0), (0, 2), Molecules.cat([molecules, final]))


def test_rewards_of_a_group_do_not_depend_on_who_else_is_asking(
    tiny_folder: Path, molecules: Molecules
) -> None:
    settings = RewardSettings(force_field=str(tiny_folder), energy_weight=0.1, device="cpu")
    server = start_reward_server(settings, "qm9")
    queries = [make_query(molecules, i) for i in range(12)]
    together = ray.get([server.score.remote(query) for query in queries])
    field = MaceForceField.from_folder(tiny_folder)
    for query, answer in zip(queries, together, strict=True):
        alone = ray.get(server.score.remote(query))
        for name in ("force", "energy", "stability", "rms_force", "formation_energy"):
            assert torch.equal(getattr(answer, name), getattr(alone, name)), name
        expected = compute_rewards(
            query, field.evaluate(query.molecules), field.evaluate(query.predicted), settings, "qm9"
        )
        torch.testing.assert_close(answer.force, expected.force, rtol=0, atol=1e-4)
        torch.testing.assert_close(answer.energy, expected.energy, rtol=0, atol=1e-4)
        assert torch.equal(answer.stability, expected.stability)
    ray.kill(server)


def test_concurrent_molecules_share_batches(tiny_folder: Path, molecules: Molecules) -> None:
    server = start_reward_server(RewardSettings(force_field=str(tiny_folder), device="cpu"), "qm9")
    results = ray.get([server.evaluate.remote(molecules[[i % 3]]) for i in range(12)])
    expected = MaceForceField.from_folder(tiny_folder).evaluate(molecules)
    for i, result in enumerate(results):
        torch.testing.assert_close(result.energy[0], expected.energy[i % 3], rtol=0, atol=1e-4)
    stats = ray.get(server.stats.remote())
    assert (stats.queries, stats.molecules) == (12, 12)
    assert stats.batches < 12
    ray.kill(server)


def test_a_bad_molecule_is_masked_and_the_server_goes_on(tiny_folder: Path, molecules: Molecules) -> None:
    server = start_reward_server(RewardSettings(force_field=str(tiny_folder), energy_weight=0.0), "qm9")
    nowhere = Molecules.from_lists([np.array([6, 1])], [np.full((2, 3), np.nan)])
    query = RewardQuery(0, Molecules.cat([nowhere, molecules]), (10, 0), (), Molecules.from_lists([], []))
    answer = ray.get(server.score.remote(query))
    assert answer.failures == (Failure.NON_FINITE, None, None, None)
    assert answer.force_mask.tolist() == [False, True, True, True]
    result = ray.get(server.evaluate.remote(molecules))
    assert result.failures == (None, None, None)
    assert ray.get(server.stats.remote()).failures == {"non_finite_coordinates": 1}
    ray.kill(server)


def test_a_killed_server_comes_back_and_answers_again(tiny_folder: Path, molecules: Molecules) -> None:
    server = start_reward_server(RewardSettings(force_field=str(tiny_folder), energy_weight=0.1), "qm9")
    query = make_query(molecules, 0)
    before = ray.get(server.score.remote(query))
    ray.kill(server, no_restart=False)
    after = ray.get(server.score.remote(query))
    assert torch.equal(before.force, after.force)
    ray.kill(server)


def test_a_force_field_that_cannot_be_loaded_is_one_clear_error() -> None:
    with pytest.raises(ForceFieldError, match="no-such-field"):
        start_reward_server(RewardSettings(force_field="no-such-field"), "qm9")
