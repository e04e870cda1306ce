"""Promises of the learner's memory formula: what a chunk keeps, and the peak of a real update."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from elign.common.memory_cost import GroupSize
from elign.common.network_cost import FLOAT_BYTES, NetworkShape, num_parameters
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.learner.memory_cost import UpdateSize, chunk_bytes, learner_memory

SPECS = [PolicySpec(hidden=64, num_layers=5), PolicySpec(hidden=128, num_layers=2)]
UPDATE = """
import json
import torch
from elign.common.batching import pair_budget
from elign.common.checkpoint import load_policy
from elign.common.config_load import load_config
from elign.common.network_cost import NetworkShape
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import process_usage
from elign.learner.chunk_gradients import ChunkRunner
from elign.learner.loss import fed_grpo_loss
from elign.learner.memory_cost import chunk_bytes
from elign.common.memory_cost import HEAP_FACTOR
from elign.learner.row_scoring import score_rows, split_rows

policy = load_policy("elign-qm9-small")
parameters, hidden = list(policy.parameters()), policy.spec.hidden
minibatch = load_config("laptop", None, []).learner.minibatch_size
budget = pair_budget(torch.device("cpu"), hidden)

def loss(rows):
    log_prob, ones = score_rows(policy, rows).log_prob, torch.ones(len(rows["t"]))
    known = log_prob.detach()
    return fed_grpo_loss(log_prob=log_prob, log_prob_proximal=known, log_prob_behaviour=known, advantage=ones,
                         weight=ones, kl=None, clip_range=0.2, kl_coefficient=0.0)

def update(count, largest):
    sizes = torch.arange(count) % largest + 1
    mask = torch.arange(largest)[None] < sizes[:, None]
    z = torch.randn(count, largest, policy.state_dim) * mask[..., None]
    rows = {"z_t": z, "z_s": z.clone(), "t": torch.full((count,), 500), "s": torch.full((count,), 480),
            "node_mask": mask}
    for _ in runner.run(split_rows(rows, budget), loss, parameters):
        pass

runner = ChunkRunner(1)
keep_freed_memory()
torch.set_num_threads(1)
update(4, 3)  # code is loaded at first use
rest = process_usage().resident_bytes
for _ in range(2):
    update(minibatch, 25)
grown = process_usage().peak_resident_bytes - rest
print(json.dumps([grown, HEAP_FACTOR["cpu"] * chunk_bytes(NetworkShape.of(policy.spec), budget)]))
"""


def _saved_bytes(policy: DiffusionPolicy, num_molecules: int, num_atoms: int) -> int:
    """What the network keeps for its backward pass, its weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    mask = torch.ones(num_molecules, num_atoms, dtype=torch.bool)
    z = torch.randn(num_molecules, num_atoms, policy.state_dim)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        eps = policy.eps(z, torch.full((num_molecules,), 500), mask)
    assert eps.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.num_layers}x{spec.hidden}")
def test_a_chunk_keeps_what_the_formula_says(spec: PolicySpec) -> None:
    kept = _saved_bytes(DiffusionPolicy(spec), 10, 20)
    assert kept == pytest.approx(chunk_bytes(NetworkShape.of(spec), 10 * 20**2), rel=0.3)


def test_memory_is_the_sum_of_its_parts() -> None:
    shape, group = NetworkShape.of(SPECS[0]), GroupSize(20, 16, 25, 25, 9)
    size = UpdateSize(group, num_groups=8, num_rows=2816, minibatch_size=512, with_reference=True)
    one, two = (learner_memory(shape, size, device="cpu", threads=threads) for threads in (1, 2))
    assert two.chunks == 2 * one.chunks
    assert two.rows == one.rows > 4 * 2816 * 2 * 20 * 9 * FLOAT_BYTES
    assert two.optimizer - one.optimizer == FLOAT_BYTES * num_parameters(shape)
    assert one.reference == 2816 * 20 * 9 * FLOAT_BYTES
    assert one.total == one.trajectories + one.rows + one.reference + one.optimizer + one.chunks


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no current memory")
def test_the_formula_is_near_what_an_update_at_laptop_sizes_grows_by() -> None:
    done = subprocess.run([sys.executable, "-c", UPDATE], capture_output=True, text=True, check=True)
    grown, predicted = json.loads(done.stdout)
    # heaps differ between systems, hence the room
    assert predicted / 3 < grown < predicted * 3
