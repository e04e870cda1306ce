"""Sampling: whole molecules for users, and groups that share their first steps for training.

Every random number comes from the seed of the call or plan, so one seed gives one result. Molecules of
similar size go together, and nothing in the loop waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from elign.common.batching import pair_budget, size_buckets
from elign.common.fixed_composition import FixedComposition
from elign.common.molecules import Molecules
from elign.common.policy import DiffusionPolicy, Transition, project
from elign.common.rollout import RolloutPlan, Trajectory

NOISE_BLOCK = 50
"""Steps whose noise is drawn at once: bounds memory; part of what a seed means."""


def time_grid(num_steps: int, num_timesteps: int = 1000) -> list[int]:
    """num_steps + 1 descending times from T to 0: T (2u² - u³), u evenly from 1 to 0, at least one apart.

    Denser near the end, where the noise is small and bonds are decided; at the start, where a large stride
    would blow up the error of a state that is nearly all noise, as dense as even steps. All times are there
    when num_steps = T.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"steps must be between 1 and {num_timesteps}, not {num_steps}")
    grid: list[int] = []
    for i in range(num_steps + 1):
        u = i / num_steps
        wanted = round(num_timesteps * u**2 * (2 - u))
        grid.append(max(wanted, grid[-1] + 1) if grid else wanted)
    return grid[::-1]


def branch_index(num_steps: int, shared_prefix: float) -> int:
    """How many of the steps a group shares; at least one is left to train."""
    return min(round(num_steps * shared_prefix), num_steps - 1)


def choose_potential_steps(schedule: str, num_transitions: int, evaluations: int) -> tuple[int, ...]:
    """Ascending indices of the transitions whose starting state's potential is evaluated; the first is 0.

    ``uniform`` strides evenly; ``adaptive`` is denser near the end (quadratic spacing).
    """
    fractions = np.arange(min(evaluations, num_transitions)) / min(evaluations, num_transitions)
    if schedule == "adaptive":
        fractions = 1.0 - (1.0 - fractions) ** 2
    return tuple(sorted({int(f * num_transitions) for f in fractions}))


def sample_molecules(
    policy: DiffusionPolicy,
    num_atoms: Sequence[int],
    *,
    num_steps: int,
    seed: int,
    predict_at: int = 0,
    context: Tensor | None = None,
    elements: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Molecules:
    """Molecules of the given sizes, in that order; ``progress(done, total)`` counts finished molecules.

    predict_at: denoising ends at the first time of the grid that is not above it, and the clean molecules
    predicted from there are returned: what a shaped reward is asked about. 0: the finished molecules.

    Each molecule's random numbers come from (seed, its index), so what else is sampled changes it by rounding
    at most. context: [B, C] for conditional policies. elements: the composition of every molecule, one atomic
    number an atom, so that all sizes are their number; see ``fixed_composition``. On a CPU, batches run side
    by side, one a thread. Raises ValueError for elements that do not fit the sizes or that the policy lacks.
    """
    device = next(policy.parameters()).device
    sizes = torch.tensor(list(num_atoms), dtype=torch.long)
    grid = time_grid(num_steps, policy.num_timesteps)
    grid = grid[: 1 + next(i for i, time in enumerate(grid) if time <= predict_at)]
    stop = threading.Event()
    if elements is not None and bool((sizes != len(elements)).any()):
        raise ValueError(f"{len(elements)} elements do not fit molecules of other sizes")
    composition = None if elements is None else FixedComposition(policy, elements)

    def sample(chosen: Tensor) -> Molecules:
        given = None if context is None else context[chosen].to(device)
        return _sample_batch(policy, sizes[chosen], chosen.tolist(), grid, seed, given, composition, stop)

    batches = size_buckets(sizes, pair_budget(device, policy.spec.hidden))
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    parts: list[Molecules] = []
    with ThreadPoolExecutor(threads, "sampling", torch.set_num_threads, (1,)) as pool:
        try:
            for part in pool.map(sample, batches):
                parts.append(part)
                if progress is not None:
                    progress(sum(len(part) for part in parts), len(sizes))
        finally:
            stop.set()  # whoever interrupts need not wait for the rest
    if not parts:
        return Molecules.cat([])
    return Molecules.cat(parts)[torch.argsort(torch.cat(batches))]


@torch.no_grad()
def _sample_batch(
    policy: DiffusionPolicy,
    sizes: Tensor,
    index: list[int],
    grid: Sequence[int],
    seed: int,
    context: Tensor | None,
    composition: FixedComposition | None,
    stop: threading.Event,
) -> Molecules:
    """Molecules of sizes [B] with the random numbers of ``index``, on the CPU; ends early once ``stop``."""
    device = next(policy.parameters()).device
    mask = (torch.arange(int(sizes.max()))[None, :] < sizes[:, None]).to(device)
    generators = [_generator(seed, i) for i in index]
    noise = _noise_per_molecule(generators, sizes.tolist(), mask, policy.state_dim, len(grid))
    z = next(noise)
    for t, s in pairwise(grid):
        if stop.is_set():
            break
        z, _ = _step(policy, z, t, s, mask, next(noise), context, composition)
    return _decode_clean(policy, z, grid[-1], mask, context, composition).to("cpu")


@torch.no_grad()
def sample_group(
    policy: DiffusionPolicy,
    plan: RolloutPlan,
    *,
    num_steps: int,
    shared_prefix: float,
    potential_steps: Callable[[int], tuple[int, ...]],
    policy_version: int,
) -> Trajectory:
    """One group: a common prefix computed once, then K branches whose states and log-probabilities are kept.

    potential_steps: from the number T' of trained transitions to the indices whose predicted clean molecules
    are wanted (``choose_potential_steps``, or ``lambda n: ()``). Where the plan gives the elements, the
    policy chooses positions alone, and log-probabilities are theirs. The result is on the CPU.
    """
    device = next(policy.parameters()).device
    grid = time_grid(num_steps, policy.num_timesteps)
    branch = branch_index(num_steps, shared_prefix)
    size, wanted = (plan.num_atoms, policy.state_dim), potential_steps(num_steps - branch)
    generator = torch.Generator().manual_seed(plan.seed)
    shared_noise = torch.randn(branch + 1, 1, *size, generator=generator).to(device)
    branch_noise = torch.randn(num_steps - branch, plan.num_samples, *size, generator=generator).to(device)
    mask = torch.ones(plan.num_samples, plan.num_atoms, dtype=torch.bool, device=device)
    context = None if plan.context is None else torch.full((plan.num_samples, 1), plan.context, device=device)
    composition = None if plan.elements is None else FixedComposition(policy, plan.elements)

    z = project(shared_noise[0], mask[:1])
    for (t, s), noise in zip(pairwise(grid[: branch + 1]), shared_noise[1:], strict=True):
        z, _ = _step(policy, z, t, s, mask[:1], noise, None if context is None else context[:1], composition)

    states, log_probs, predicted = [z.expand(plan.num_samples, -1, -1)], [], []
    for i, ((t, s), noise) in enumerate(zip(pairwise(grid[branch:]), branch_noise, strict=True)):
        z, step = _step(policy, states[-1], t, s, mask, noise, context, composition)
        states.append(z)
        positions_only = composition is not None
        log_probs.append(policy.log_prob(z, step.mu, step.sigma, mask, positions_only=positions_only))
        if i in wanted:
            clean = step.z0_hat if composition is None else composition.nearest(step.z0_hat)
            predicted.append(policy.decode(clean, mask))
    return Trajectory(
        plan=plan,
        policy_version=policy_version,
        times=tuple(grid[branch:]),
        z=torch.stack(states).cpu(),
        log_prob=torch.stack(log_probs).cpu(),
        potential_steps=wanted,
        predicted=Molecules.cat(predicted).to("cpu"),
        molecules=_decode_clean(policy, states[-1], 0, mask, context, composition).to("cpu"),
    )


def _step(
    policy: DiffusionPolicy,
    z: Tensor,
    t: int,
    s: int,
    mask: Tensor,
    noise: Tensor,
    context: Tensor | None,
    composition: FixedComposition | None,
) -> tuple[Tensor, Transition]:
    """z_s = mu + sigma · noise, with the noise projected onto the centred subspace; features as they must."""
    times = [torch.full((len(z),), value, device=z.device) for value in (t, s)]
    step = policy.transition(z, times[0], times[1], mask, context)
    z_s = (step.mu + step.sigma[:, None, None] * project(noise, mask)).to(z.dtype)
    return (z_s if composition is None else composition.constrain(z, z_s, step.z0_hat, t, s, noise)), step


def _decode_clean(
    policy: DiffusionPolicy,
    z: Tensor,
    time: int,
    mask: Tensor,
    context: Tensor | None,
    composition: FixedComposition | None = None,
) -> Molecules:
    """The clean molecules predicted from z at ``time``; at 0 the mean of p(x, h | z_0)."""
    times = torch.full((len(z),), time, dtype=torch.long, device=z.device)
    clean = policy.predict_clean(z, times, mask, context)
    return policy.decode(clean if composition is None else composition.nearest(clean), mask)


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> 1)
    )


def _noise_per_molecule(
    generators: list[torch.Generator], sizes: list[int], mask: Tensor, width: int, steps: int
) -> Iterator[Tensor]:
    """``steps`` times [B, N, D] of noise, each molecule's from its own generator; the first is projected."""
    for first in range(0, steps, NOISE_BLOCK):
        count = min(NOISE_BLOCK, steps - first)
        block = torch.zeros(count, len(sizes), mask.shape[1], width)
        for i, (generator, size) in enumerate(zip(generators, sizes, strict=True)):
            block[:, i, :size] = torch.randn(NOISE_BLOCK, size, width, generator=generator)[:count]
        for k, noise in enumerate(block.to(mask.device)):
            yield project(noise, mask) if first + k == 0 else noise
