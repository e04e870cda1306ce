"""The reward server on a small real cluster: replicas behind one handle, killed, drained, refused."""

from __future__ import annotations

import os
import signal
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from elign.common.config import RewardSettings
from elign.common.errors import ForceFieldError
from elign.common.molecules import Molecules
from elign.common.scoring import Failure, RewardAnswer, RewardQuery
from elign.reward_server.ase_force_field import AseForceField
from elign.reward_server.front_watch import watched_front
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.reward_actor import ServerStats, start_reward_server, stop_reward_server
from elign.reward_server.rewards import compute_rewards


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("r")
    ray.init(num_cpus=4, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False)
    yield
    ray.shutdown()


def settings_of(tiny_folder: Path, **changes: object) -> RewardSettings:
    values = {"force_field": str(tiny_folder), "energy_weight": 0.1, "device": "cpu", **changes}
    return RewardSettings.model_validate(values)


@pytest.fixture(scope="module")
def one_replica(tiny_folder: Path) -> Iterator[Any]:
    server = start_reward_server(settings_of(tiny_folder), "qm9")
    yield server
    ray.kill(server)


def make_query(molecules: Molecules, group_id: int) -> RewardQuery:
    noise = 0.05 * torch.randn(molecules.positions.shape, generator=torch.Generator().manual_seed(group_id))
    positions = (molecules.positions + noise) * molecules.node_mask.unsqueeze(-1)
    final = Molecules(positions, molecules.atomic_numbers, molecules.node_mask)
    return RewardQuery(group_id, final, (300, 200, 100, 0), (0, 2), Molecules.cat([molecules, final]))


def assert_same_answer(mine: RewardAnswer, theirs: RewardAnswer) -> None:
    for name in ("force", "energy", "stability", "rms_force", "formation_energy"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def stats_of(server: Any) -> ServerStats:
    stats: ServerStats = ray.get(server.stats.remote())
    return stats


def wait_until(condition: Callable[[], bool]) -> None:
    """The test's own time limit ends a wait that never does."""
    while not condition():
        time.sleep(0.05)


def test_rewards_of_a_group_do_not_depend_on_who_asks_who_answers_or_what_died(
    tiny_folder: Path, molecules: Molecules, one_replica: Any
) -> None:
    """Many callers, a replica killed in the middle: no answer is lost, repeated or different."""
    settings = settings_of(tiny_folder, replicas=2)
    server = start_reward_server(settings, "qm9")
    queries = [make_query(molecules, i) for i in range(60)]
    asked = [server.score.remote(query, caller=str(i % 7)) for i, query in enumerate(queries)]
    wait_until(lambda: stats_of(server).dispatch.answered > 5)
    victim = next(name for name, load in stats_of(server).dispatch.replicas.items() if load)
    os.kill(int(victim.removeprefix("process ")), signal.SIGKILL)
    answers = ray.get(asked)

    field = MaceForceField.from_folder(tiny_folder)
    for query, answer in zip(queries, answers, strict=True):
        assert_same_answer(answer, ray.get(one_replica.score.remote(query)))
    for query, answer in zip(queries[:3], answers[:3], strict=True):
        final, predicted = field.evaluate(query.molecules), field.evaluate(query.predicted)
        expected = compute_rewards(query, final, predicted, settings, "qm9")
        torch.testing.assert_close(answer.force, expected.force, rtol=0, atol=1e-4)
        torch.testing.assert_close(answer.energy, expected.energy, rtol=0, atol=1e-4)
        assert torch.equal(answer.stability, expected.stability)

    wait_until(lambda: stats_of(server).healthy)
    dispatch = stats_of(server).dispatch
    assert (dispatch.asked, dispatch.answered, dispatch.failed, dispatch.waiting) == (60, 60, 0, 0)
    assert dispatch.replaced == 1
    assert victim not in dispatch.replicas
    assert len(dispatch.replicas) == 2
    ray.kill(server)


@pytest.mark.slow
def test_a_replica_that_hangs_is_replaced_and_its_query_answered(
    molecules: Molecules, tiny_folder: Path
) -> None:
    server = start_reward_server(settings_of(tiny_folder, timeout_s=20.0), "qm9")
    query = make_query(molecules, 1)
    expected = ray.get(server.score.remote(query, caller="a"))
    (hanging,) = stats_of(server).dispatch.replicas
    os.kill(int(hanging.removeprefix("process ")), signal.SIGSTOP)
    other = make_query(molecules, 2)
    answer = ray.get(server.score.remote(other, caller="a"), timeout=500)
    assert answer.failures == expected.failures
    dispatch = stats_of(server).dispatch
    assert (dispatch.replaced, dispatch.retried, dispatch.failed) == (1, 1, 0)
    assert hanging not in dispatch.replicas
    ray.kill(server)


@pytest.mark.slow
def test_a_front_that_hangs_is_restarted_and_answers_what_it_was_asked(
    molecules: Molecules, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elign.reward_server.front_watch.ASK_EVERY_S", 1.0)
    server = start_reward_server(settings_of(tiny_folder), "qm9")
    query = make_query(molecules, 1)
    expected = ray.get(server.score.remote(query, caller="a"))
    hanging = stats_of(server).process_id
    os.kill(hanging, signal.SIGSTOP)
    asked = server.score.remote(query, caller="a")
    with watched_front(server, timeout_s=20.0):
        assert_same_answer(ray.get(asked, timeout=300), expected)
        assert stats_of(server).process_id != hanging
    ray.kill(server)


def test_the_branch_states_molecule_and_a_repeated_query_are_evaluated_once(
    molecules: Molecules, one_replica: Any
) -> None:
    before = stats_of(one_replica)
    branch = molecules[[0, 0, 0]]  # the same for all samples of the group
    query = RewardQuery(1000, molecules, (10, 0), (0,), branch)
    first, second = ray.get([one_replica.score.remote(query), one_replica.score.remote(query)])
    assert_same_answer(first, second)
    after = stats_of(one_replica)
    assert after.joined == before.joined + 1
    assert after.replicas.molecules - before.replicas.molecules == 6
    assert after.replicas.evaluated - before.replicas.evaluated == 3  # methane is the branch's too


def test_concurrent_molecules_share_batches(
    tiny_folder: Path, molecules: Molecules, one_replica: Any
) -> None:
    before = stats_of(one_replica).replicas
    results = ray.get([one_replica.evaluate.remote(molecules[[i % 3]]) for i in range(12)])
    expected = MaceForceField.from_folder(tiny_folder).evaluate(molecules)
    for i, result in enumerate(results):
        torch.testing.assert_close(result.energy[0], expected.energy[i % 3], rtol=0, atol=1e-4)
    after = stats_of(one_replica).replicas
    assert (after.queries - before.queries, after.molecules - before.molecules) == (12, 12)
    assert after.batches - before.batches < 12


def test_a_bad_molecule_is_masked_and_the_server_goes_on(molecules: Molecules, one_replica: Any) -> None:
    nowhere = Molecules.from_lists([np.array([6, 1])], [np.full((2, 3), np.nan)])
    batch = Molecules.cat([nowhere, molecules])
    query = RewardQuery(0, batch, (10, 0), (0,), batch)
    answer = ray.get(one_replica.score.remote(query))
    assert answer.failures == (Failure.NON_FINITE, None, None, None)
    assert answer.force_mask.tolist() == [False, True, True, True]
    result = ray.get(one_replica.evaluate.remote(molecules))
    assert result.failures == (None, None, None)
    assert stats_of(one_replica).replicas.failures == {"non_finite_coordinates": 2}


def test_a_killed_server_comes_back_answers_again_and_leaves_no_replica_behind(
    molecules: Molecules, tiny_folder: Path
) -> None:
    server = start_reward_server(settings_of(tiny_folder), "qm9")
    query = make_query(molecules, 0)
    before = ray.get(server.score.remote(query))
    (first,) = stats_of(server).dispatch.replicas
    killed = stats_of(server).process_id
    ray.kill(server, no_restart=False)
    wait_until(lambda: stats_of(server).process_id != killed)
    after = ray.get(server.score.remote(query))
    assert_same_answer(before, after)
    (second,) = stats_of(server).dispatch.replicas
    wait_until(lambda: not is_alive(first))
    last = [server.score.remote(make_query(molecules, 100 + i)) for i in range(20)]
    wait_until(lambda: stats_of(server).dispatch.asked == 21)
    stop_reward_server(server)  # everything taken is answered before it ends
    assert len(ray.get(last)) == 20
    wait_until(lambda: not is_alive(second))


def is_alive(name: str) -> bool:
    path = Path(f"/proc/{name.removeprefix('process ')}/stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_force_field_that_cannot_be_loaded_is_one_clear_error() -> None:
    with pytest.raises(ForceFieldError, match="no-such-field"):
        start_reward_server(RewardSettings(force_field="no-such-field", replicas=2), "qm9")


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """A Python of its own that has everything this one has, and a calculator that this one lacks."""
    venv.create(tmp_path / "other", with_pip=False)
    packages = next((tmp_path / "other" / "lib").glob("python*")) / "site-packages"
    (packages / "everything.pth").write_text("\n".join(path for path in sys.path if path))
    (packages / "calculator_of_the_other.py").write_text(
        "import sys\n"
        "from ase.calculators.lj import LennardJones\n"
        "class Other(LennardJones):\n"
        f"    assert sys.prefix == {str(tmp_path / 'other')!r}\n"
    )
    return tmp_path / "other" / "bin" / "python"


def test_a_backend_may_live_in_another_python_environment(other_python: Path, molecules: Molecules) -> None:
    values = {
        "force_field": "ase:calculator_of_the_other:Other",
        "force_field_options": {"sigma": 1.2, "epsilon": 0.1},
    }
    with pytest.raises(ForceFieldError, match=r"calculator_of_the_other.*reward\.runtime_env"):
        start_reward_server(RewardSettings.model_validate(values), "qm9")
    values["runtime_env"] = {"py_executable": str(other_python)}
    server = start_reward_server(RewardSettings.model_validate(values), "qm9")
    result = ray.get(server.evaluate.remote(molecules))
    here = AseForceField("ase:ase.calculators.lj:LennardJones", {"sigma": 1.2, "epsilon": 0.1})
    torch.testing.assert_close(result.energy, here.evaluate(molecules).energy)
    ray.kill(server)


def test_a_runtime_environment_that_cannot_be_is_one_clear_error(tiny_folder: Path) -> None:
    with pytest.raises(ForceFieldError, match=r"reward\.runtime_env"):
        start_reward_server(settings_of(tiny_folder, runtime_env={"env_vars": {"A": 1}}), "qm9")
