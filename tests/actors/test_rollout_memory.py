"""The rollout's memory formula beside the peak of a real process, at the laptop preset's sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import torch
from elign.actors.rollout import roll_out
from elign.common.checkpoint import load_policy
from elign.common.config_load import load_config
from elign.common.memory_cost import GroupSize, rollout_memory
from elign.common.network_cost import NetworkShape
from elign.common.process_memory import keep_freed_memory
from elign.common.process_usage import process_usage
from elign.common.rollout import RolloutPlan
from elign.common.sampling import branch_index

torch.set_num_threads(1)
keep_freed_memory()
config = load_config("laptop", None, [])
policy, rollout = load_policy(config.policy.checkpoint).eval(), config.rollout
atoms, samples = max(policy.spec.size_histogram), rollout.samples_per_group

def sample(num_atoms, num_samples):
    plan = RolloutPlan(0, num_atoms, num_samples, seed=0)
    roll_out(policy, plan, rollout, config.reward, policy_version=0)

sample(2, 2)  # code is loaded at first use
rest = process_usage().resident_bytes
sample(atoms, samples)
grown = process_usage().peak_resident_bytes - rest
shared = branch_index(rollout.num_steps, rollout.shared_prefix)
group = GroupSize(atoms, samples, shared, rollout.num_steps - shared, policy.state_dim)
predicted = rollout_memory(NetworkShape.of(policy.spec), group, device="cpu")
# no weights came from an object store here
print(json.dumps([grown, predicted.total - predicted.weights]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no current memory")
def test_the_formula_is_near_what_a_process_grows_by() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    grown, predicted = json.loads(done.stdout)
    # heaps differ between systems, hence the room
    assert predicted / 3 < grown < predicted * 3
