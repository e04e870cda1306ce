"""``elign force-fields train``: structures -> GFN2-xTB labels -> a small MACE -> held-out errors -> a folder.

The loss of a structure is the mean length of its atoms' force errors plus multiples of its error of the RMS
force and of its energy error per atom, weighted by 1/(softening + RMS force): labels span four orders of
magnitude, and what matters for a reward is to be relatively right at every size of force. The RMS force, by
which the reward ranks, has a term of its own: a force that the network cannot foresee it makes too small, so
that molecules which hold such surprises would look calm. Labels and training go on where an interrupted run
stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from elign.common.devices import cpu_name
from elign.common.molecules import Molecules
from elign.reward_server.force_field_data import (
    LabelledMolecules,
    average_neighbours,
    fit_reference_energies,
    from_labels,
    split_by_source,
)
from elign.reward_server.force_field_report import held_out_errors, write_card
from elign.reward_server.force_field_settings import ForceFieldTrainingSettings
from elign.reward_server.fused_convolution import fuse_convolutions
from elign.reward_server.labels import label_structures
from elign.reward_server.mace_model import MaceSpec, build_network, graph_input, load_network, save_network
from elign.reward_server.packing import pack
from elign.reward_server.structures import (
    KINDS,
    Molecule,
    make_structures,
    pair_structures,
    sample_structures,
)
from elign.reward_server.training_state import TrainingState

ELEMENTS = (1, 6, 7, 8, 9)
_SMOOTH = 0.01  # eV/Å
Progress = Callable[[int, int, str], None]


def train_force_field(
    settings: ForceFieldTrainingSettings,
    molecules: Molecules,
    samples: Mapping[str, Molecules],
    out: Path,
    *,
    command: str,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a force field and write it into the folder ``out``; returns its metadata with the held-out errors.

    molecules: clean ones, near equilibrium, of H C N O F. samples: by name, what policies made, judged as
    they are. command: recorded in the card. progress(done, total, text). Labels are cached in
    ``out/labels``, the state of training in ``out/training``: the same call goes on from there. Raises
    DataError for unusable data.
    """
    data = _labelled(settings, molecules, samples, out / "labels", progress)
    training, held_out = split_by_source(data, settings.held_out_every)
    network, spec, origin = start_network(settings, training)
    num_training = len(training)
    training = repeat_samples(training, settings.sample_repeats)
    state = fit(settings, spec, network, training, out / "training", device=device, progress=progress)
    metadata = {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "started_from": origin,
        "labels": "GFN2-xTB (tblite), neutral, lowest spin",
        "training_structures": num_training,
        "held_out_structures": len(held_out),
        "training_minutes": round(state.seconds / 60, 1),
        "training_machine": _machine(torch.device(device)),
        "held_out": held_out_errors(state.averaged, spec, held_out, settings.max_force, device),
    }
    save_network(state.averaged, spec, metadata, out)
    write_card(out / "README.md", out.name, spec, metadata)
    return metadata


def _machine(device: torch.device) -> str:
    """What the card says of where training ran (where it ended, if it went on elsewhere)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, torch with {threads} of them"


def start_network(
    settings: ForceFieldTrainingSettings, training: LabelledMolecules
) -> tuple[nn.Module, MaceSpec, dict[str, Any] | None]:
    """(network, its specification, the metadata of what it starts from): fresh, or ``settings.initial``."""
    if settings.initial is not None:
        network, description = load_network(Path(settings.initial), torch.float32)
        return network, description.spec, description.metadata
    spec = make_spec(settings, training)
    torch.manual_seed(settings.seed)
    return build_network(spec, torch.float32), spec, None


def repeat_samples(training: LabelledMolecules, repeats: int) -> LabelledMolecules:
    """The data with all that a policy made in it ``repeats`` times, the rest once."""
    of_policy = torch.tensor([kind not in KINDS for kind in training.kinds])
    counts = torch.where(of_policy, repeats, 1)
    return training.select(torch.arange(len(training)).repeat_interleave(counts))


def make_spec(settings: ForceFieldTrainingSettings, training: LabelledMolecules) -> MaceSpec:
    """The architecture, with constants that follow from the training data."""
    usable = training.forces[
        (training.forces.norm(dim=-1) <= settings.max_force) & training.molecules.node_mask
    ]
    return MaceSpec(
        elements=ELEMENTS,
        reference_energies=fit_reference_energies(training, ELEMENTS),
        channels=settings.channels,
        r_max=settings.r_max,
        max_ell=settings.max_ell,
        correlation=settings.correlation,
        radial_width=settings.radial_width,
        average_neighbours=average_neighbours(training, settings.r_max),
        energy_scale=float(usable.norm(dim=-1).median()),
    )


def fit(
    settings: ForceFieldTrainingSettings,
    spec: MaceSpec,
    network: nn.Module,
    training: LabelledMolecules,
    checkpoint: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> TrainingState:
    """Train ``network``, from ``checkpoint`` on if that exists; returns the last state."""
    if torch.device(device).type == "cpu":
        fuse_convolutions(network)
    state = TrainingState(network.to(device), settings)
    if checkpoint.exists():
        state.load(checkpoint)
    references = torch.tensor(spec.reference_energies, dtype=torch.float64)
    batches_per_epoch = max(1, len(training) // settings.batch_size)
    total = settings.epochs * batches_per_epoch
    while state.step < total:
        batch = training.select(_batch_index(settings, len(training), state.step, batches_per_epoch))
        loss = structure_loss(network, spec, batch, references, settings, device)
        state.update(loss, rate_factor(settings, state.step, total))
        if state.step % settings.checkpoint_every == 0 or state.step == total:
            state.save(checkpoint)
        if progress is not None:
            progress(state.step, total, f"loss {state.mean_loss:.3f}")
    return state


def structure_loss(
    network: nn.Module,
    spec: MaceSpec,
    batch: LabelledMolecules,
    references: Tensor,
    settings: ForceFieldTrainingSettings,
    device: torch.device | str,
) -> Tensor:
    """The weighted loss of one batch; see the module's text. references: [elements] eV."""
    molecules = batch.molecules
    packed = pack(molecules.to(device), spec.r_max)
    out = network(graph_input(packed, network), training=True)
    rms_target, num_atoms = batch.rms_force().to(device), molecules.num_atoms.to(device)
    weight = 1.0 / (settings.softening + rms_target)
    calm = weight * (batch.largest_force() <= settings.max_force).to(device)

    target = batch.forces[molecules.node_mask].to(device)
    per_atom = force_errors(out["forces"], target, settings.max_force) * weight[packed.batch]
    rms_error = (rms_by_molecule(out["forces"], packed.batch, num_atoms) - rms_target).abs()
    composition = torch.stack([(molecules.atomic_numbers == z).sum(1) for z in spec.elements], dim=1).double()
    above = (batch.energy - composition @ references).float().to(device)
    energy_error = (out["interaction_energy"] - above).abs() / num_atoms

    per_molecule = settings.rms_force_weight * rms_error + settings.energy_weight * energy_error
    loss = per_atom.mean() + (per_molecule * calm).sum() / (calm > 0).sum().clamp(min=1)
    return cast(Tensor, loss)


def rms_by_molecule(forces: Tensor, batch: Tensor, num_atoms: Tensor) -> Tensor:
    """[M] RMS force of packed molecules; forces [n, 3], batch [n] their molecule, num_atoms [M].

    Smooth at zero, where a root has no slope.
    """
    squared = torch.zeros_like(num_atoms, dtype=forces.dtype).index_add(0, batch, forces.square().sum(-1))
    return (squared / num_atoms + _SMOOTH**2).sqrt()


def force_errors(forces: Tensor, target: Tensor, max_force: float) -> Tensor:
    """[n] eV/Å: |F - F_target|; where the target is beyond ``max_force``, what F along it lacks to that.

    How large such a force is, is nobody's business, but it must be large: a policy finds every hole. forces,
    target: [n, 3].
    """
    length = target.norm(dim=-1)
    along = (forces * target).sum(-1) / length.clamp(min=1e-9)
    return torch.where(length <= max_force, (forces - target).norm(dim=-1), (max_force - along).clamp(min=0))


def rate_factor(settings: ForceFieldTrainingSettings, step: int, total: int) -> float:
    """Part of the learning rates at ``step``: linear warm-up, then a cosine down to a hundredth."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _batch_index(
    settings: ForceFieldTrainingSettings, size: int, step: int, batches_per_epoch: int
) -> Tensor:
    """Which structures step ``step`` trains on: a fresh permutation each epoch, from the seed alone."""
    epoch, position = divmod(step, batches_per_epoch)
    order = np.random.default_rng((settings.seed, epoch)).permutation(size)
    return torch.from_numpy(order[position * settings.batch_size : (position + 1) * settings.batch_size])


def _labelled(
    settings: ForceFieldTrainingSettings,
    molecules: Molecules,
    samples: Mapping[str, Molecules],
    folder: Path,
    progress: Progress | None,
) -> LabelledMolecules:
    clean = _in_double(molecules)
    groups = [make_structures(clean, settings.counts, np.random.default_rng(settings.seed))]
    first = len(clean)
    for number, (name, made) in enumerate(samples.items(), start=1):
        arrays = _in_double(made)
        rng = np.random.default_rng((settings.seed, number))
        groups.append(sample_structures(name, arrays, first, rng))
        first += len(arrays)
    groups.append(pair_structures(ELEMENTS, settings.pairs, first, np.random.default_rng((settings.seed, 0))))
    labels = []
    for structures in groups:
        labels += label_structures(
            structures,
            folder,
            processes=settings.processes,
            progress=None if progress is None else lambda done, total: progress(done, total, "labels"),
        )
    return from_labels(labels)


def _in_double(molecules: Molecules) -> list[Molecule]:
    """GFN2-xTB works in float64."""
    return [(numbers, positions.astype(np.float64)) for numbers, positions in molecules.arrays()]
