"""A reward server without a force field: rewards how compact the molecules are; can be slow or fail."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import ray
import torch

from elign.common.scoring import RewardAnswer, RewardQuery

# Ray's workers cannot import the tests, so the class travels as it is
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class FakeRewardServer:
    """Answers as the real one does, from positions alone."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.failing_group: int | None = None
        self.open = threading.Event()
        self.open.set()

    def hold(self) -> None:
        """Answer nothing until ``release``."""
        self.open.clear()

    def release(self) -> None:
        self.open.set()

    def set(self, delay_s: float, failing_group: int | None) -> None:
        """Wait so long before each answer; fail for that group."""
        self.delay_s, self.failing_group = delay_s, failing_group

    def ping(self) -> None:
        """Proof of life, as of the real one."""

    def score(self, query: RewardQuery, **_: str) -> RewardAnswer:
        self.open.wait()
        time.sleep(self.delay_s)
        if query.group_id == self.failing_group:
            raise ValueError("no reward today")
        compact = -query.molecules.positions.square().mean((1, 2))
        known = torch.ones(len(compact), dtype=torch.bool)
        return RewardAnswer(
            force=compact,
            force_mask=known,
            energy=compact.expand(len(query.times) - 1, -1),
            energy_mask=known.expand(len(query.times) - 1, -1),
            stability=compact,
            stability_mask=known,
            rms_force=-compact,
            formation_energy=compact,
            stable=known,
            failures=(None,) * len(compact),
        )


def start_fake_reward_server(*_: Any) -> Any:
    """A handle; takes the place of ``start_reward_server``."""
    return ray.remote(FakeRewardServer).options(max_concurrency=16, num_cpus=0).remote()
