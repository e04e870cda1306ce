"""Promises of a profile as data and tables: shares of ceilings are right, GPUs show, nothing is cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from elign.common.device_ceilings import DeviceCeilings
from elign.common.network_cost import Cost
from elign.profiling.breakdown import (
    PhaseRate,
    ProcessProfile,
    TrainingProfile,
    iteration_times,
    rollout_times,
)
from elign.profiling.table import arithmetic_table, process_table, time_table

CEILINGS = DeviceCeilings("cpu", 1, product_flops=8e10, square_flops=1e11, bandwidth=2e10)
ROWS = [
    {
        "time_broadcast_s": 0.5,
        "time_rollout_s": 4.0 + extra,
        "time_advantages_s": 0.25,
        "time_update_s": 3.0,
        "sampling_s": 6.0,
        "reward_wait_s": 1.0,
    }
    for extra in (-0.5, 0.5)
]


def _profile(**changes: object) -> TrainingProfile:
    profile = TrainingProfile(
        iterations=2,
        warm_up_iterations=1,
        times=iteration_times(ROWS, [8.0, 9.0]),
        rollout=rollout_times(ROWS, num_actors=2),
        processes=(
            ProcessProfile("rollout actor", 2, 0.7, 0.1, 3.0, 100_000_000, 350_000_000, 200_000_000, 0),
        ),
        store_bytes=0,
        store_bytes_moved=3_000_000,
        rates=(PhaseRate("sampling", Cost(4 * 10**10, 10**10), 2.0, 1.0, CEILINGS),),
        machine={"architecture": "x86_64", "cpu_cores": 2, "gpus": []},
        config={},
    )
    return replace(profile, **changes)  # type: ignore[arg-type]


def _text(table: object) -> str:
    console = Console(width=110)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_times_are_means_and_add_up() -> None:
    times, rollout = _profile().times, _profile().rollout
    assert (times.wall, times.rollout, times.rest) == (8.5, 4.0, 0.75)
    assert (rollout.sampling, rollout.waiting_for_rewards, rollout.idle) == (3.0, 0.5, 0.5)
    assert "35.3 %" in _text(time_table(_profile()))  # the update's 3 of 8.5 s


def test_shares_of_the_ceilings() -> None:
    rate = _profile().rates[0]
    assert rate.flops_rate == 2e10
    assert rate.share_of_ceiling == pytest.approx(0.25)
    assert rate.share_on_core == pytest.approx(0.5)
    assert rate.share_of_ceiling_on_core == pytest.approx(0.5)
    assert rate.json()["share_of_bandwidth"] == pytest.approx(0.25)
    assert "25.0 %" in _text(arithmetic_table(_profile()))


def test_a_gpu_has_a_column_and_no_processor_time() -> None:
    assert "GPU" not in _text(process_table(_profile()))
    on_gpu = replace(_profile().processes[0], gpu_peak_bytes=5 * 10**9)
    assert "5000" in _text(process_table(_profile(processes=(on_gpu,))))
    rate = replace(_profile().rates[0], cpu_seconds=None)
    assert rate.json()["share_of_product_ceiling_on_core"] is None


def test_memory_stands_beside_its_formula() -> None:
    line = next(line for line in _text(process_table(_profile())).splitlines() if "each of 2" in line)
    assert [cell.strip() for cell in line.split("│")[6:10]] == ["100", "350", "250", "200"]
