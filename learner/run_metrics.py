"""The figures of a run: ``metrics.parquet`` (one row an iteration) and TensorBoard events.

The Parquet file is small and written anew each iteration, whole or not at all, so a reader never sees half a
row and a resumed run can cut it back to its checkpoint.

Where an iteration's time goes, in seconds: ``time_broadcast_s`` publishing the weights, ``time_rollout_s``
until the last group is there, ``time_advantages_s`` normalizing rewards and building rows, ``time_update_s``
the optimizer steps; ``time_iteration_s`` is all of it with the driver's own figures. ``sampling_s`` and
``reward_wait_s`` (an actor has nothing to sample, and rewards are still to come) are sums over the actors,
which work at the same time: for what is left of their number times ``time_rollout_s`` they were idle.
``time_sampling_cpu_s`` and ``time_update_cpu_s`` (of a learner in the driver's process) are processor time:
less than the threads had means that the machine was busy with something else, or that they waited.

``idle_share_learner`` is what waiting for groups takes of an iteration, ``idle_share_actors`` what the actors
did not sample since the iteration before. ``policy_lag_mean`` and ``policy_lag_max`` say by how many
iterations the sampling policy was behind; ``plans_rerun``, ``plans_dropped_stale`` and ``plans_set_aside``
count groups that were given out again, sampled by too old a policy, and given up.
"""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from elign.common.arrow_files import read_table
from elign.common.errors import DataError
from elign.common.storage import write_atomic

METRICS_FILE, TENSORBOARD_FOLDER = "metrics.parquet", "tensorboard"
Row = dict[str, float]


def read_metrics(run_dir: Path | str) -> list[Row]:
    """Rows of a run's iterations, oldest first; raises DataError where the file is missing or damaged."""
    path = Path(run_dir) / METRICS_FILE
    try:
        rows: list[Row] = read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"there are no metrics in {run_dir} ({path} is missing)") from None
    return rows


class MetricsLog:
    """Appends rows; ``completed`` > 0 goes on after that iteration and drops what came later."""

    def __init__(self, run_dir: Path, *, completed: int) -> None:
        self._path = run_dir / METRICS_FILE
        rows = read_metrics(run_dir) if completed else []
        self.rows = [row for row in rows if row["iteration"] <= completed]
        if [row["iteration"] for row in self.rows] != list(range(1, completed + 1)):
            raise DataError(
                f"{self._path} lacks iterations of the checkpoint: it should have 1 to {completed}"
            )
        self._writer = SummaryWriter(  # type: ignore[no-untyped-call]
            str(run_dir / TENSORBOARD_FOLDER), purge_step=completed + 1 if completed else None
        )

    def append(self, row: Row) -> None:
        """Write one more iteration to both places."""
        self.rows.append(row)
        table = pa.Table.from_pylist(self.rows)
        write_atomic(self._path, lambda temporary: pq.write_table(table, temporary))
        for name, value in row.items():
            if name != "iteration":
                self._writer.add_scalar(_tag(name), value, int(row["iteration"]))  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


def best_iteration(rows: list[Row], key: str, window: int) -> tuple[int, float] | None:
    """The first iteration with the highest moving average of ``key``, and that average; None without one.

    A window with a NaN (nothing could be judged) is never best.
    """
    best: tuple[int, float] | None = None
    values = [row[key] for row in rows]
    for end in range(window, len(values) + 1):
        average = sum(values[end - window : end]) / window
        if not math.isnan(average) and (best is None or average > best[1]):
            best = (int(rows[end - 1]["iteration"]), average)
    return best


def _tag(name: str) -> str:
    """TensorBoard groups by the part before the slash."""
    for prefix, group in (("reward_", "rewards"), ("failures_", "failures"), ("time_", "time")):
        if name.startswith(prefix) and name != "reward_wait_s":
            return f"{group}/{name}"
    return f"run/{name}"
