"""From a force field's answers to rewards: the force, energy and stability channels of DESIGN section 4.

Gates and clips act on the force and energy channels, bonuses and penalties on the stability channel (see
``penalties``), all before any normalization: forces and energies stay what the force field says.

Pure functions on tensors. K samples, T' trained transitions; transition i goes from time t_i to t_{i+1},
and T' - i transitions remain when it starts. Psi = -formation_energy per atom, of the predicted clean
molecule at a state, or of the final molecule (Psi_0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from elign.common.config import RewardSettings
from elign.common.geometry import largest_piece
from elign.common.molecules import Molecules
from elign.common.scoring import ForceFieldResult, RewardAnswer, RewardQuery
from elign.common.stability import is_stable, stable_atom_mask
from elign.reward_server.penalties import penalties


def compute_rewards(
    query: RewardQuery,
    final: ForceFieldResult,
    predicted: ForceFieldResult,
    settings: RewardSettings,
    dataset: str,
    known_smiles: frozenset[str] = frozenset(),
) -> RewardAnswer:
    """The rewards of one group; what could not be judged is masked, never given a number.

    final: answers for ``query.molecules`` [K]. predicted: for ``query.predicted`` [P*K], step-major.
    dataset: whose bond tables decide on stability. known_smiles: molecules that are not novel. Raises
    ValueError when the query does not hold the states that the settings' energy mode needs.
    """
    molecules = query.molecules
    rms_force = final.rms_force(molecules.node_mask)
    force, force_mask = force_reward(rms_force, settings)
    energy, energy_mask = _energy_channel(query, final, predicted, settings)
    stability, stability_mask = stability_reward(molecules, dataset)
    penalty = penalties(molecules, settings, dataset, known_smiles)
    stability = torch.where(stability_mask, stability - penalty, 0.0)
    stable = is_stable(molecules, dataset)
    if settings.force_only_stable:
        force, force_mask = _gate(force, force_mask, stable)
    if settings.energy_only_stable:
        energy, energy_mask = _gate(energy, energy_mask, stable)
    return RewardAnswer(
        force=force,
        force_mask=force_mask,
        energy=energy,
        energy_mask=energy_mask,
        stability=stability,
        stability_mask=stability_mask,
        rms_force=rms_force,
        formation_energy=final.formation_energy,
        stable=stable,
        failures=final.failures,
    )


def force_reward(rms_force: Tensor, settings: RewardSettings) -> tuple[Tensor, Tensor]:
    """r_F = -min(rms, force_clip)^force_power, and where it is known. rms_force: [K] eV/Å, NaN if failed."""
    known = torch.isfinite(rms_force)
    reward = -(rms_force.clamp(max=settings.force_clip) ** settings.force_power)
    return torch.where(known, reward, 0.0).float(), known


def stability_reward(molecules: Molecules, dataset: str) -> tuple[Tensor, Tensor]:
    """[K] fraction of atoms stable and in the largest piece, and [K] where coordinates are finite."""
    finite = (torch.isfinite(molecules.positions).all(-1) | ~molecules.node_mask).all(1)
    good = stable_atom_mask(molecules, dataset) & largest_piece(molecules)
    fraction = good.sum(1) / molecules.num_atoms.clamp(min=1)
    return torch.where(finite, fraction, 0.0), finite


def energy_returns(
    potential: Tensor,
    final_potential: Tensor,
    steps: tuple[int, ...],
    num_transitions: int,
    settings: RewardSettings,
) -> Tensor:
    """[T', K] return-to-go of the energy channel, NaN where it needs a potential that is NaN.

    potential: [P, K] Psi at the ascending transitions ``steps``. final_potential: [K] Psi_0. shaped:
    gamma^(T'-i) Psi_0 - Psi_p(i), p(i) the last scheduled transition up to i (paper Eq. 4; between two
    scheduled ones the baseline may only know what happened before the action). delta: gamma^(next-p)
    Psi_next - Psi_p, from p(i) to the next scheduled state, or to the end. terminal: Psi_0.
    """
    index = torch.arange(num_transitions)
    if settings.energy_mode == "terminal":
        return final_potential.expand(num_transitions, -1).clone()
    if not steps or steps[0] != 0:
        raise ValueError(
            f"potential steps {steps} must begin with transition 0 for mode {settings.energy_mode!r}"
        )
    scheduled = torch.tensor(steps)
    segment = torch.searchsorted(scheduled, index, right=True) - 1
    if settings.energy_mode == "shaped":
        discount = settings.gamma ** (num_transitions - index).double()
        return discount.unsqueeze(1) * final_potential - potential[segment]
    following = torch.cat([potential[1:], final_potential.unsqueeze(0)])
    lengths = torch.diff(scheduled, append=torch.tensor([num_transitions]))
    difference = (settings.gamma ** lengths.double()).unsqueeze(1) * following - potential
    return difference[segment]


def _gate(reward: Tensor, known: Tensor, passes: Tensor) -> tuple[Tensor, Tensor]:
    """Reward and mask [..., K] with the samples that do not pass [K] masked, never given a number."""
    known = known & passes
    return torch.where(known, reward, 0.0), known


def _energy_channel(
    query: RewardQuery, final: ForceFieldResult, predicted: ForceFieldResult, settings: RewardSettings
) -> tuple[Tensor, Tensor]:
    num_transitions, num_samples = len(query.times) - 1, len(query.molecules)
    if settings.energy_weight == 0:
        off = torch.zeros(num_transitions, num_samples)
        return off, off.bool()
    predicted_energy, final_energy = predicted.formation_energy, final.formation_energy
    if settings.energy_clip is not None:
        predicted_energy, final_energy = (
            energy.clamp(-settings.energy_clip, settings.energy_clip)
            for energy in (predicted_energy, final_energy)
        )
    potential = -predicted_energy.view(len(query.potential_steps), num_samples)
    returns = energy_returns(potential, -final_energy, query.potential_steps, num_transitions, settings)
    known = torch.isfinite(returns)
    return torch.where(known, returns, 0.0).float(), known
