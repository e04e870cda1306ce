"""Public EDM checkpoints give the published numbers; a hostile or damaged one gives one clear error."""

import argparse
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from elign.common.checkpoint import load_policy
from elign.common.edm_import import import_edm
from elign.common.errors import CheckpointError

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "edm_parity"
needs_parity = pytest.mark.skipif(
    not PARITY.is_dir(), reason="the published reference numbers are not on this machine"
)


def relative_error(value: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(value.numpy() - expected).max() / np.abs(expected).max())


@needs_parity
@pytest.mark.parametrize("name", ["edm_qm9", "edm_geom_drugs"])
@torch.no_grad()
def test_imported_checkpoint_gives_the_published_numbers(name: str, tmp_path: Path) -> None:
    policy = load_policy(import_edm(PARITY / name, tmp_path / "policy"))
    # random weights throw clean states where no molecule is, and the published formulation lets them
    policy._bound = lambda clean, _: clean  # type: ignore[method-assign]
    expected = np.load(PARITY / name / "expected.npz")
    z = torch.from_numpy(expected["z_t"])
    mask = torch.arange(z.shape[1])[None] < torch.from_numpy(expected["num_nodes"])[:, None]
    pairs = [
        tuple(int(part[1:]) for part in key.split("_")[:2]) for key in expected.files if key.endswith("_eps")
    ]
    assert len(pairs) == 6
    for s, t in pairs:
        times = torch.full((len(z),), t), torch.full((len(z),), s)
        step = policy.transition(z, *times, mask)
        key = f"s{s}_t{t}"
        assert relative_error(policy.eps(z, times[0], mask), expected[f"{key}_eps"]) < 1e-5
        assert relative_error(step.mu, expected[f"{key}_mu"]) < 1e-5
        assert relative_error(step.sigma, expected[f"{key}_sigma"]) < 1e-5
    clean = policy.predict_clean(z, torch.zeros(len(z), dtype=torch.long), mask)
    assert relative_error(clean, expected["decode_mu"]) < 1e-5
    assert relative_error(policy.schedule.gamma, expected["num_gamma"]) < 1e-5


@needs_parity
def test_conditional_checkpoint_is_recognized(tmp_path: Path) -> None:
    source = shutil.copytree(PARITY / "edm_qm9", tmp_path / "edm")
    args = pickle.loads((source / "args.pickle").read_bytes())  # noqa: S301 - our own reference file
    args.conditioning, args.context_node_nf = ["alpha"], 1
    (source / "args.pickle").unlink()
    (source / "args.pickle").write_bytes(pickle.dumps(args))
    weights = torch.load(source / "generative_model_ema.npy", weights_only=True)
    for end, axis in (("embedding.weight", 1), ("embedding_out.weight", 0), ("embedding_out.bias", 0)):
        key = f"dynamics.egnn.{end}"
        weights[key] = torch.cat([weights[key], torch.ones_like(weights[key].narrow(axis, 0, 1))], axis)
    (source / "generative_model_ema.npy").unlink()
    torch.save(weights, source / "generative_model_ema.npy")
    policy = load_policy(import_edm(source, tmp_path / "policy"))
    assert policy.spec.conditioning == ("alpha",)


def _args(**changes: object) -> argparse.Namespace:
    given = {
        "dataset": "qm9",
        "diffusion_noise_schedule": "polynomial_2",
        "diffusion_steps": 1000,
        "diffusion_noise_precision": 1e-5,
        "nf": 8,
        "n_layers": 1,
        "attention": True,
        "tanh": True,
        "norm_constant": 1,
        "normalization_factor": 1,
        "normalize_factors": [1, 4, 10],
        "include_charges": True,
    }
    return argparse.Namespace(**(given | changes))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/never-written",))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (_Bomb(), "only a plain argparse.Namespace"),
        ({"nf": 3}, "not the arguments"),
        (_args(sin_embedding=True), "sin_embedding"),
        (_args(dataset="zinc"), "zinc"),
        (_args(diffusion_noise_schedule="cosine"), "polynomial_2"),
        (argparse.Namespace(dataset="qm9"), "no setting"),
    ],
)
def test_unsuitable_args_are_one_clear_error(args: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "args.pickle").write_bytes(pickle.dumps(args))
    with pytest.raises(CheckpointError, match=message):
        import_edm(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_truncated_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"args\.pickle is missing"):
        import_edm(tmp_path, tmp_path / "out")
    whole = pickle.dumps(_args())
    (tmp_path / "args.pickle").write_bytes(whole[:-20])
    with pytest.raises(CheckpointError, match="cannot read"):
        import_edm(tmp_path, tmp_path / "out")
    (tmp_path / "args.pickle").write_bytes(whole)
    with pytest.raises(CheckpointError, match="has none of"):
        import_edm(tmp_path, tmp_path / "out")
    (tmp_path / "generative_model_ema.npy").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match="truncated"):
        import_edm(tmp_path, tmp_path / "out")
    (tmp_path / "generative_model_ema.npy").unlink()
    torch.save({"buffer": torch.zeros(1)}, tmp_path / "generative_model_ema.npy")
    with pytest.raises(CheckpointError, match="do not fit"):
        import_edm(tmp_path, tmp_path / "out")
