"""A profile for people: tables of time, processes, and arithmetic."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from elign.common.device_ceilings import DeviceCeilings
from elign.profiling.breakdown import ProcessProfile, TrainingProfile

_WIDTH = 110


def print_profile(profile: TrainingProfile) -> None:
    """On standard output; plain, and not wrapped, where that is no terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(_measured(profile))
    for table in (time_table(profile), process_table(profile), arithmetic_table(profile)):
        console.print(table)


def _measured(profile: TrainingProfile) -> str:
    """What the figures stand for, and the machine."""
    number = "1 iteration" if profile.iterations == 1 else f"mean of {profile.iterations} iterations"
    machine = [f"{profile.machine['architecture']}, {profile.machine['cpu_cores']} CPU cores"]
    devices = ", ".join(machine + profile.machine["gpus"])
    return f"{number}, after {profile.warm_up_iterations} to warm up; {devices}"


def time_table(profile: TrainingProfile) -> Table:
    """An iteration on the driver's clock; indented, what the average actor did in the meantime."""
    times, rollout = profile.times, profile.rollout
    table = _table("Time of an iteration", "phase", "seconds", "share")
    for name, seconds in (
        ("weights broadcast", times.broadcast),
        ("rollout", times.rollout),
        ("  sampling", rollout.sampling),
        ("  waiting for rewards", rollout.waiting_for_rewards),
        ("  idle", rollout.idle),
        ("advantages and rows", times.advantages),
        ("update", times.update),
        ("driver's rest", times.rest),
        ("iteration", times.wall),
    ):
        table.add_row(name, f"{seconds:.3f}", _percent(seconds / times.wall))
    return table


def process_table(profile: TrainingProfile) -> Table:
    """Shares of the iteration, processor time, and memory beside the formula's growth."""
    headings = ("process", "busy", "waiting", "idle", "CPU s", "at rest", "peak", "growth", "formula")
    with_gpu = any(process.gpu_peak_bytes for process in profile.processes)
    store = f"object store: {_megabytes(profile.store_bytes_moved)} MB an iteration"
    table = _table("Processes (memory in MB)", *headings, *(["GPU"] if with_gpu else []), caption=store)
    for process in profile.processes:
        name = process.name if process.count == 1 else f"{process.name} (each of {process.count})"
        gpu = [_megabytes(process.gpu_peak_bytes)] if with_gpu else []
        table.add_row(name, *_process_figures(process), *gpu)
    return table


def _process_figures(process: ProcessProfile) -> list[str]:
    return [
        *(_percent(share) for share in (process.busy, process.waiting, process.idle)),
        f"{process.cpu_seconds:.2f}",
        _megabytes(process.rest_bytes),
        _megabytes(process.peak_bytes),
        _megabytes(process.peak_bytes - process.rest_bytes),
        "" if process.predicted_bytes is None else _megabytes(process.predicted_bytes),
    ]


def arithmetic_table(profile: TrainingProfile) -> Table:
    """What a thread reaches of what the device can do."""
    caption = "\n".join(dict.fromkeys(_ceilings(rate.ceilings) for rate in profile.rates))
    headings = (
        "phase",
        "TFLOP",
        "GFLOP/s",
        "of ceiling",
        "on core",
        "of ceiling there",
        "GB/s",
        "of bandwidth",
    )
    table = _table("Arithmetic of the network (per thread)", *headings, caption=caption)
    for rate in profile.rates:
        table.add_row(
            rate.name,
            f"{rate.cost.flops / 1e12:.3f}",
            f"{rate.flops_rate / 1e9:.1f}",
            _percent(rate.share_of_ceiling),
            _percent(rate.share_on_core),
            _percent(rate.share_of_ceiling_on_core),
            f"{rate.bytes_rate / 1e9:.1f}",
            _percent(rate.bytes_rate / rate.ceilings.bandwidth),
        )
    return table


def _ceilings(ceilings: DeviceCeilings) -> str:
    return (
        f"ceilings ({ceilings.device}): {ceilings.product_flops / 1e9:.0f} GFLOP/s at the network's size, "
        f"{ceilings.square_flops / 1e9:.0f} at a large square, {ceilings.bandwidth / 1e9:.0f} GB/s"
    )


def _table(title: str, *headings: str, caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right", no_wrap=True)
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f}"
