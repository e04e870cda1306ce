"""Promises of the ceilings: measured by one thread, which changes nothing for the rest of the process."""

from __future__ import annotations

import pytest
import torch

from elign.common import device_ceilings
from elign.common.device_ceilings import measure_ceilings


def test_ceilings_are_measured_on_one_thread_that_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_ceilings, "SQUARE", {"cpu": 128})
    monkeypatch.setattr(device_ceilings, "TRIAD_ELEMENTS", {"cpu": 1 << 12})
    threads = torch.get_num_threads()
    ceilings = measure_ceilings(torch.device("cpu"), rows=200, hidden=16)
    assert torch.get_num_threads() == threads
    assert (ceilings.device, ceilings.threads) == ("cpu", 1)
    # no processor of any age is outside these: a factor of the count would be
    assert 1e7 < ceilings.product_flops < 1e13
    assert 1e7 < ceilings.square_flops < 1e13
    assert 1e7 < ceilings.bandwidth < 1e13
