"""The example sweep: the algorithm runs under Ray Tune as any of RLlib's."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import ray

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "sweep.py"
SMALL = ("rollout.num_steps=12", "rollout.groups=2", "rollout.samples_per_group=3", "learner.skip_last=1")


@pytest.mark.slow
def test_every_pair_is_a_trial_with_its_own_settings(tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("sweep", SCRIPT)
    assert found is not None
    assert found.loader is not None
    example = importlib.util.module_from_spec(found)
    found.loader.exec_module(example)
    ray.cloudpickle.register_pickle_by_value(example)  # Ray's workers cannot import it by that name
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, _temp_dir=f"/tmp/elign-{os.getpid()}")
    try:
        overrides = [*SMALL, "actors.max=1"]
        grid = example.sweep(
            "laptop", overrides, energy_weights=(0.0, 0.1), prefixes=(0.5,), iterations=2, storage=tmp_path
        )
        assert not grid.errors
        assert [r.config["train_config"].reward.energy_weight for r in grid] == [0.0, 0.1]
        assert all(r.metrics["elign"]["iteration"] == 2 for r in grid)
        assert grid.get_best_result() in list(grid)
    finally:
        ray.shutdown()
