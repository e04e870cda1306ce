"""The policy's arithmetic against the published formulation: a denoising step, the update of a transition.

    python -m tests.benchmarks.policy_speed [--hidden 256 --layers 9] [--repeats 7]

One CPU core, float32, random weights, molecules of QM9's sizes. The baseline runs the same weights as
published code does: an edge list over all pairs of atoms padded to the data set's largest molecule (29),
features concatenated on every edge; its update loops over the time steps with micro-batches of four. Both
sides take turns, the ratio is the median over the turns; results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from elign.common.batching import pair_budget, size_buckets
from elign.common.checkpoint import load_policy
from elign.common.policy import DiffusionPolicy, PolicySpec, project
from elign.common.process_memory import keep_freed_memory
from elign.learner.loss import fed_grpo_loss
from elign.learner.row_scoring import score_rows, split_rows
from elign.learner.transitions import ADVANTAGE, LOG_PROB_BEHAVIOUR, NODE_MASK, STEP, WEIGHT, Z_S, Z_T, S, T
from elign.samples import draw_sizes
from tests.common.egnn_reference import ReferencePolicy

LARGEST = 29
PRODUCTS = {"aten::addmm", "aten::addmm_", "aten::mm", "aten::bmm"}
ACTIVATIONS = {"aten::silu", "aten::silu_", "aten::sigmoid", "aten::tanh"}
MICRO_BATCH = 4
SEED = 0
Work = Callable[[], object]


def qm9_sizes(count: int) -> list[int]:
    """Numbers of atoms drawn as in QM9."""
    return draw_sizes(load_policy("elign-qm9-small"), count, SEED)


def seconds(work: Work) -> float:
    """Of this thread on a processor, so that it does not matter what else runs on the machine."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def take_turns(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work)
            if turn:
                times[name].append(spent)
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    return median(a / b for a, b in zip(slow, fast, strict=True))


def best_product(hidden: int) -> tuple[Work, float]:
    """The float32 matrix product that runs at the highest rate on this core, and its 1e9 operations."""
    candidates = []
    for rows, inner in ((1024, 1024), (2048, 2048), (512, hidden), (2048, hidden), (8192, hidden)):
        a, b = torch.randn(rows, inner), torch.randn(inner, inner)
        work = partial(torch.mm, a, b, out=torch.empty(rows, inner))
        operations = 2e-9 * rows * inner * inner
        candidates.append((operations / min(seconds(work) for _ in range(20)), work, operations))
    _, work, operations = max(candidates, key=lambda candidate: candidate[0])
    return work, operations


def states(policy: DiffusionPolicy, sizes: list[int], width: int) -> tuple[Tensor, Tensor]:
    """Random states [B, width, D] and their mask; a molecule's numbers do not depend on the padding."""
    mask = torch.arange(width)[None] < torch.tensor(sizes)[:, None]
    z = torch.zeros(len(sizes), width, policy.state_dim)
    for i, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(1000 * i + size)
        z[i, :size] = torch.randn(size, policy.state_dim, generator=generator)
    return z, mask


@torch.no_grad()
def denoise(policy: DiffusionPolicy, z: Tensor, mask: Tensor) -> Tensor:
    """The mean of one denoising step."""
    t = torch.full((len(z),), 500)
    return policy.transition(z, t, t - 20, mask).mu


def batches(policy: DiffusionPolicy, sizes: list[int]) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Indices and states of the batches that the sampler would make; sizes: descending."""
    buckets = size_buckets(torch.tensor(sizes), pair_budget(torch.device("cpu"), policy.spec.hidden))
    whole = states(policy, sizes, LARGEST)
    return buckets, [
        (whole[0][b][:, : sizes[int(b[0])]], whole[1][b][:, : sizes[int(b[0])]]) for b in buckets
    ]


def time_shares(policy: DiffusionPolicy, count: int) -> tuple[float, float]:
    """Shares of a denoising step's time in matrix products and in activations; the rest adds and copies."""
    _, parts = batches(policy, sorted(qm9_sizes(count), reverse=True))
    for part in parts:
        denoise(policy, *part)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for part in parts:
            denoise(policy, *part)
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    return tuple(sum(spent.get(name, 0.0) for name in names) / total for names in (PRODUCTS, ACTIVATIONS))


def denoising_step(
    policy: DiffusionPolicy, reference: ReferencePolicy, count: int, repeats: int
) -> tuple[float, float, float, float]:
    """(ms a molecule of the baseline, of Elign, ratio, Elign's share of the matrix-product ceiling)."""
    sizes = sorted(qm9_sizes(count), reverse=True)
    whole = states(policy, sizes, LARGEST)
    buckets, parts = batches(policy, sizes)
    expected = denoise(reference, *whole)
    for bucket, (z, mask) in zip(buckets, parts, strict=True):
        same(denoise(policy, z, mask), expected[bucket][:, : z.shape[1]])
    with FlopCounterMode(display=False) as counter:
        for part in parts:
            denoise(policy, *part)
    product, operations = best_product(policy.spec.hidden)
    number = max(1, round(counter.get_total_flops() / 1e9 / operations))
    times = take_turns(
        {
            "baseline": lambda: denoise(reference, *whole),
            "elign": lambda: [denoise(policy, *part) for part in parts],
            "products": lambda: [product() for _ in range(number)],
        },
        repeats,
    )
    slow, fast = times["baseline"], times["elign"]
    share = ratio(times["products"], fast) * counter.get_total_flops() / 1e9 / (operations * number)
    return 1e3 * median(slow) / count, 1e3 * median(fast) / count, ratio(slow, fast), share


def same(mine: Tensor, expected: Tensor) -> None:
    """Stop where results differ by more than 1e-5 of their size."""
    error = float((mine - expected).abs().max() / expected.abs().max())
    if not error <= 1e-5:
        raise SystemExit(f"results differ by {error:.1e} of their size, more than 1e-5")


@torch.no_grad()
def transitions_of_groups(policy: DiffusionPolicy, groups: int, samples: int) -> dict[str, Tensor]:
    """Transitions of groups at two time steps, sampled by ``policy``, as the learner gets them."""
    sizes = [size for size in qm9_sizes(groups) for _ in range(2 * samples)]
    z, mask = states(policy, sizes, max(sizes))
    z_t = project(z, mask)
    t = torch.tensor([500, 250]).repeat_interleave(samples).repeat(groups)
    step = policy.transition(z_t, t, t - 20, mask)
    generator = torch.Generator().manual_seed(SEED)
    noise = project(torch.randn(z.shape, generator=generator), mask)
    z_s = step.mu + step.sigma[:, None, None] * noise
    return {
        Z_T: z_t,
        Z_S: z_s,
        T: t,
        S: t - 20,
        STEP: (t == 250).long(),
        NODE_MASK: mask,
        LOG_PROB_BEHAVIOUR: policy.log_prob(z_s, step.mu, step.sigma, mask),
        ADVANTAGE: torch.randn(len(t), generator=generator),
        WEIGHT: torch.full((len(t),), 1.0 / len(t)),
    }


def accumulate(
    policy: DiffusionPolicy, chunks: list[dict[str, Tensor]], anchor: DiffusionPolicy | None
) -> None:
    """Gradients of the whole loss, chunk by chunk."""
    policy.zero_grad()
    for chunk in chunks:
        mu = None if anchor is None else means(anchor, chunk)
        scores = score_rows(policy, chunk, mu)
        fed_grpo_loss(
            log_prob=scores.log_prob,
            log_prob_proximal=chunk[LOG_PROB_BEHAVIOUR],
            log_prob_behaviour=chunk[LOG_PROB_BEHAVIOUR],
            advantage=chunk[ADVANTAGE],
            weight=chunk[WEIGHT],
            kl=scores.kl,
            clip_range=0.2,
            kl_coefficient=0.04,
        ).loss.backward()


@torch.no_grad()
def means(policy: DiffusionPolicy, chunk: dict[str, Tensor]) -> Tensor:
    """What the KL term compares with."""
    return policy.transition(chunk[Z_T], chunk[T], chunk[S], chunk[NODE_MASK]).mu


def loop_over_time(rows: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Micro-batches of one time step each, padded to the largest molecule of the data set."""
    padded = dict(rows)
    missing = LARGEST - rows[NODE_MASK].shape[1]
    for name in (Z_T, Z_S):
        padded[name] = torch.nn.functional.pad(rows[name], (0, 0, 0, missing))
    padded[NODE_MASK] = torch.nn.functional.pad(rows[NODE_MASK], (0, missing))
    chunks = []
    for step in rows[STEP].unique().tolist():
        index = (rows[STEP] == step).nonzero().flatten()
        chunks += [{name: padded[name][part] for name in padded} for part in index.split(MICRO_BATCH)]
    return chunks


def update(
    policy: DiffusionPolicy, reference: ReferencePolicy, repeats: int, *, kl: bool
) -> tuple[float, float, float]:
    """(ms a transition of the baseline, of Elign, ratio), gradients alone, with or without the KL term."""
    rows = transitions_of_groups(policy, groups=4, samples=6)
    chunks = split_rows(rows, pair_budget(torch.device("cpu"), policy.spec.hidden))
    loop = loop_over_time(rows)
    anchors = (policy, reference) if kl else (None, None)
    accumulate(policy, chunks, anchors[0])
    accumulate(reference, loop, anchors[1])
    same(flat_gradient(policy), flat_gradient(reference))
    times = take_turns(
        {
            "baseline": lambda: accumulate(reference, loop, anchors[1]),
            "elign": lambda: accumulate(policy, chunks, anchors[0]),
        },
        repeats,
    )
    slow, fast = times["baseline"], times["elign"]
    return 1e3 * median(slow) / len(rows[T]), 1e3 * median(fast) / len(rows[T]), ratio(slow, fast)


def flat_gradient(policy: DiffusionPolicy) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def padding() -> float:
    """Per cent of the pairs of atoms that the sampler pads, for 256 molecules and the shipped policy."""
    num_atoms = torch.tensor(qm9_sizes(256))
    budget = pair_budget(torch.device("cpu"), load_policy("elign-qm9-small").spec.hidden)
    padded = sum(len(b) * int(num_atoms[b].max()) ** 2 for b in size_buckets(num_atoms, budget))
    return 100 * (1 - float(num_atoms.square().sum()) / padded)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--molecules", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(SEED)
    policy = DiffusionPolicy(PolicySpec(hidden=given.hidden, num_layers=given.layers)).eval()
    reference = ReferencePolicy(policy.spec).eval()
    reference.load_state_dict(policy.state_dict())

    print(f"{platform.machine()}, one core, {given.layers} layers x {given.hidden}, float32\n")
    print("| work | published formulation, ms | Elign, ms | ratio |\n|---|---:|---:|---:|")
    slow, fast, times, share = denoising_step(policy, reference, given.molecules, given.repeats)
    print(f"| a denoising step of a molecule | {slow:.1f} | {fast:.2f} | {times:.1f} |")
    for kl, label in ((False, "without"), (True, "with")):
        slow, fast, times = update(policy, reference, max(given.repeats // 2, 1), kl=kl)
        print(f"| update of a transition, {label} KL | {slow:.0f} | {fast:.1f} | {times:.1f} |")
    print(
        f"\n{padding():.1f} % of the pairs of atoms are padding in a batch of 256 molecules of QM9's sizes."
    )
    products, activations = time_shares(policy, given.molecules)
    rest = 1 - products - activations
    print(
        f"Of its time, matrix products take {100 * products:.0f} %, activations {100 * activations:.0f} %, "
        f"sums and copies {100 * rest:.0f} %."
    )
    print(f"A denoising step runs its matrix products at {100 * share:.0f} % of this core's best rate.")


if __name__ == "__main__":
    main()
