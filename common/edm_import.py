"""Public EDM checkpoints (``args.pickle`` + ``generative_model_ema.npy``) to policies, number for number.

``args.pickle`` is read by an unpickler that knows argparse.Namespace and nothing else; the weights by torch's
restricted loader. No code of a downloaded file runs.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elign.common.checkpoint import save_policy
from elign.common.datasets import get_dataset
from elign.common.errors import CheckpointError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.user_folder import user_folder

ARGS_FILE = "args.pickle"
WEIGHTS_FILES = ("generative_model_ema.npy", "generative_model.npy")
DATASETS = {"qm9": "qm9", "qm9_second_half": "qm9", "qm9_first_half": "qm9", "geom": "geom"}
REQUIRED = {
    "model": "egnn_dynamics",
    "inv_sublayers": 1,
    "sin_embedding": False,
    "condition_time": True,
    "aggregation_method": "sum",
    "remove_h": False,
}


class _NamespaceUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return argparse.Namespace
        raise CheckpointError(
            f"{ARGS_FILE} asks for {module}.{name}; only a plain argparse.Namespace is read"
        )


def import_edm(folder: Path | str, out: Path | str) -> Path:
    """Convert the checkpoint in ``folder``; ``out`` is a name in the user's folder or, with a slash, a path.

    Returns the new policy folder. Raises CheckpointError for anything missing, damaged or not supported.
    """
    folder = Path(folder)
    args = _read_args(folder / ARGS_FILE)
    policy = DiffusionPolicy(_spec(args, folder))
    weights = _read_weights(folder)
    try:
        policy.load_state_dict(_renamed(weights, policy.spec))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {folder} do not fit their {ARGS_FILE}: {error}") from error
    target = (
        Path(out) if "/" in str(out) or Path(out).is_absolute() else user_folder() / "policies" / str(out)
    )
    metadata = {"summary": f"imported EDM checkpoint, trained on {args['dataset']}", "source": folder.name}
    save_policy(policy, target, metadata)
    return target


def _read_args(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            namespace = _NamespaceUnpickler(file).load()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: an EDM checkpoint is {ARGS_FILE} + {WEIGHTS_FILES[0]}"
        ) from None
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
    ) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(namespace, argparse.Namespace):
        raise CheckpointError(f"{path} holds a {type(namespace).__name__}, not the arguments of an EDM run")
    return dict(vars(namespace))


def _spec(args: dict[str, Any], folder: Path) -> PolicySpec:
    for key, wanted in REQUIRED.items():
        if args.get(key, wanted) != wanted:
            raise CheckpointError(f"{folder}: {key} = {args[key]!r} is not supported, only {wanted!r}")
    try:
        if args["dataset"] not in DATASETS or args["diffusion_noise_schedule"] != "polynomial_2":
            raise CheckpointError(
                f"{folder}: dataset {args['dataset']!r} with schedule {args['diffusion_noise_schedule']!r} "
                f"is not supported; data sets: {', '.join(DATASETS)}; schedule: polynomial_2"
            )
        dataset = DATASETS[args["dataset"]]
        position_scale, type_scale, charge_scale = (float(v) for v in args["normalize_factors"])
        return PolicySpec(
            dataset=dataset,
            hidden=args["nf"],
            num_layers=args["n_layers"],
            attention=args["attention"],
            coords_range=15.0 if args["tanh"] else None,
            norm_constant=args["norm_constant"],
            normalization_factor=args["normalization_factor"],
            num_timesteps=args["diffusion_steps"],
            noise_precision=args["diffusion_noise_precision"],
            position_scale=position_scale,
            type_scale=type_scale,
            charge_scale=charge_scale,
            includes_charges=args["include_charges"],
            conditioning=tuple(args.get("conditioning", ())),
            size_histogram=dict(get_dataset(dataset).size_histogram),
        )
    except KeyError as error:
        raise CheckpointError(f"{folder / ARGS_FILE} has no setting {error}; is it of an EDM run?") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHTS_FILES:
        if (folder / name).exists():
            try:
                return dict(torch.load(folder / name, map_location="cpu", weights_only=True))
            except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, ValueError) as error:
                raise CheckpointError(
                    f"cannot read {folder / name}; truncated or not weights: {error}"
                ) from error
    raise CheckpointError(f"{folder} has none of {', '.join(WEIGHTS_FILES)}")


def _renamed(weights: dict[str, Tensor], spec: PolicySpec) -> dict[str, Tensor]:
    """Published names to ours; the first edge layer's columns [h_i, h_j, d, d0] become three maps."""
    own: dict[str, Tensor] = {}
    for end in ("embedding", "embedding_out"):
        own |= {
            f"network.{end}.{kind}": weights[f"dynamics.egnn.{end}.{kind}"] for kind in ("weight", "bias")
        }
    for i in range(spec.num_layers):
        theirs, ours = f"dynamics.egnn.e_block_{i}", f"network.blocks.{i}"
        own |= _pair_network(weights, f"{theirs}.gcl_0.edge_mlp", f"{ours}.message", spec.hidden)
        own |= _pair_network(weights, f"{theirs}.gcl_equiv.coord_mlp", f"{ours}.coordinate", spec.hidden)
        own[f"{ours}.coordinate_out.weight"] = weights[f"{theirs}.gcl_equiv.coord_mlp.4.weight"]
        for kind in ("weight", "bias"):
            own |= {
                f"{ours}.update.{k}.{kind}": weights[f"{theirs}.gcl_0.node_mlp.{k}.{kind}"] for k in (0, 2)
            }
            if spec.attention:
                own[f"{ours}.attention.{kind}"] = weights[f"{theirs}.gcl_0.att_mlp.0.{kind}"]
    return own


def _pair_network(weights: dict[str, Tensor], theirs: str, ours: str, hidden: int) -> dict[str, Tensor]:
    target, source, distance = weights[f"{theirs}.0.weight"].split([hidden, hidden, 2], dim=1)
    return {
        f"{ours}.target.weight": target,
        f"{ours}.target.bias": weights[f"{theirs}.0.bias"],
        f"{ours}.source.weight": source,
        f"{ours}.distance.weight": distance,
        f"{ours}.second.weight": weights[f"{theirs}.2.weight"],
        f"{ours}.second.bias": weights[f"{theirs}.2.bias"],
    }
