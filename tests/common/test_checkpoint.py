"""One checkpoint format, one loader: what is saved loads back, what is damaged says so."""

import json
from pathlib import Path

import pytest
import torch

from elign.common.checkpoint import list_policies, load_policy, resolve_policy, save_policy
from elign.common.errors import CheckpointError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.sampling import sample_molecules


@pytest.fixture(name="policy")
def _policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(PolicySpec(hidden=8, num_layers=1, size_histogram={3: 1, 5: 2})).eval()


def test_what_is_saved_loads_back_and_samples_the_same(policy: DiffusionPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p", {"summary": "a test"})
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec == policy.spec
    assert not loaded.training
    for name, value in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    first, second = (sample_molecules(p, [4, 3], num_steps=3, seed=0) for p in (policy, loaded))
    assert torch.equal(first.positions, second.positions)


def test_saving_again_replaces_the_folder(policy: DiffusionPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p", {"summary": "first"})
    save_policy(policy, tmp_path / "p", {"summary": "second"})
    assert json.loads((tmp_path / "p" / "policy.json").read_text())["metadata"]["summary"] == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_run_directory_stands_for_its_best_policy(policy: DiffusionPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "best")
    assert resolve_policy(tmp_path) == tmp_path / "best"


def test_truncated_weights_are_named(policy: DiffusionPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p")
    weights = tmp_path / "p" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_policy(tmp_path / "p")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot read"), ("[]", "not of the format"), ('{"format": "x"}', "not of the format")],
)
def test_foreign_description_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path)


def test_weights_of_another_network_are_refused(policy: DiffusionPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p")
    path = tmp_path / "p" / "policy.json"
    description = json.loads(path.read_text())
    description["spec"]["hidden"] = 16
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="not a policy this version can read"):
        load_policy(tmp_path / "p")


def test_unknown_name_lists_the_known_ones(
    policy: DiffusionPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELIGN_HOME", str(tmp_path))
    save_policy(policy, tmp_path / "policies" / "mine")
    assert "mine" in [entry.name for entry in list_policies()]
    assert resolve_policy("mine") == tmp_path / "policies" / "mine"
    with pytest.raises(CheckpointError, match="mine"):
        load_policy("yours")
    with pytest.raises(CheckpointError, match="policies import"):
        load_policy(tmp_path)
