"""Score matching learns, resumes exactly, and refuses data it cannot use."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.checkpoint import load_policy
from elign.common.errors import CheckpointError, ConfigError, DataError
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.learner.pretrain import PretrainRun, PretrainSettings, pretrain
from elign.learner.score_matching import epoch_batches, noise_loss, random_rotations, stratified_times


def water(count: int) -> Molecules:
    rng = np.random.default_rng(0)
    geometry = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    return Molecules.from_lists(
        [np.array([8, 1, 1])] * count, [geometry + rng.normal(scale=0.01, size=(3, 3)) for _ in range(count)]
    )


TINY = PretrainSettings(
    hidden=8,
    num_layers=1,
    num_steps=6,
    batch_size=4,
    warmup_steps=1,
    validate_every=3,
    checkpoint_every=2,
    stability_samples=2,
    stability_steps=3,
)


def test_training_lowers_the_validation_loss(tmp_path: Path) -> None:
    settings = TINY.model_copy(
        update={"num_steps": 150, "hidden": 16, "validate_every": 50, "batch_size": 16}
    )
    pretrain(settings, water(64), tmp_path)
    run = PretrainRun(settings, water(64), tmp_path, {})
    run.start(resume=True)
    losses = [row["validation_loss"] for row in run.log]
    assert losses[-1] < 0.8 * losses[0]
    assert load_policy(tmp_path).spec.size_histogram == {3: 62}


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = pretrain(TINY, water(20), tmp_path / "straight")

    def interrupt(step: int, *_: object) -> None:
        if step == 4:
            raise KeyboardInterrupt

    cut = TINY.model_copy(update={"log_every": 1})
    with pytest.raises(KeyboardInterrupt):
        pretrain(cut, water(20), tmp_path / "cut", on_progress=interrupt)
    resumed = pretrain(cut, water(20), tmp_path / "cut", resume=True)
    for row in (straight, resumed):
        row.pop("seconds")
    assert resumed == straight
    first, second = (load_policy(tmp_path / name).state_dict() for name in ("straight", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_existing_run_is_not_overwritten_and_settings_must_match(tmp_path: Path) -> None:
    pretrain(TINY, water(20), tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        pretrain(TINY, water(20), tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        pretrain(TINY.model_copy(update={"hidden": 4}), water(20), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="cannot read the state"):
        pretrain(TINY, water(20), tmp_path / "empty", resume=True)


def test_training_goes_on_from_another_policy_of_the_same_shape(tmp_path: Path) -> None:
    pretrain(TINY, water(20), tmp_path / "first")
    start = load_policy(tmp_path / "first").state_dict()
    further = TINY.model_copy(update={"initial": str(tmp_path / "first"), "num_steps": 1})
    run = PretrainRun(further, water(20), tmp_path / "second", {})
    assert all(torch.equal(run.policy.state_dict()[key], start[key]) for key in start)
    assert all(torch.equal(run.average.state_dict()[key], start[key]) for key in start)
    with pytest.raises(ConfigError, match="hidden 8"):
        PretrainRun(further.model_copy(update={"hidden": 16}), water(20), tmp_path / "third", {})


def test_foreign_elements_and_too_little_data_are_named(tmp_path: Path) -> None:
    gold = Molecules.from_lists([np.array([79, 1])] * 3, [np.eye(2, 3)] * 3)
    with pytest.raises(DataError, match="79"):
        pretrain(TINY, gold, tmp_path)
    with pytest.raises(DataError, match="too few"):
        pretrain(TINY, water(1), tmp_path)


def test_loss_of_a_perfect_prediction_is_zero() -> None:
    class Perfect(DiffusionPolicy):
        def eps(self, z, t, *_):  # type: ignore[no-untyped-def]
            scale = self.schedule.sigma(t)[:, None, None]
            return (z - self.schedule.alpha(t)[:, None, None] * self.z0) / scale

    policy = Perfect(PolicySpec(hidden=4, num_layers=1)).double()
    policy.schedule.double()
    molecules = water(5)
    policy.z0 = policy.encode(molecules).double()  # type: ignore[assignment]
    noise = torch.randn(policy.z0.shape, dtype=torch.float64)
    loss = noise_loss(policy, policy.z0, torch.tensor([1, 250, 500, 750, 1000]), noise, molecules.node_mask)
    assert float(loss.max()) < 1e-12


def test_batches_cover_an_epoch_once_and_are_alike_in_size() -> None:
    sizes = torch.randint(3, 30, (1000,), generator=torch.Generator().manual_seed(0))
    batches = epoch_batches(sizes, 20, seed=0, epoch=3)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(1000))
    padded = sum(int(sizes[b].max()) * len(b) for b in batches)
    assert padded / int(sizes.sum()) < 1.15
    assert not torch.equal(torch.cat(batches), torch.cat(epoch_batches(sizes, 20, seed=0, epoch=4)))


def test_times_are_stratified_and_rotations_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    t = stratified_times(100, 1000, generator).sort().values
    assert int(t.min()) >= 0
    assert int(t.max()) <= 1000
    assert (t.diff() <= 21).all()
    q = random_rotations(50, generator)
    torch.testing.assert_close(q @ q.transpose(1, 2), torch.eye(3).expand(50, 3, 3), rtol=0, atol=1e-5)
