"""How alike two force fields rank molecules by RMS force: Spearman's correlation and its 95 % interval.

    elign sample --policy elign-qm9-small -n 5000 --steps 50 --seed 35 --out fresh.parquet
    elign score fresh.parquet --force-field elign-mace-small --out own.parquet
    elign score fresh.parquet --force-field gfn2-xtb --out judged.parquet
    python -m tests.benchmarks.rank_correlation own.parquet judged.parquet

Molecules that either of them could not judge are left out, and counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import bootstrap, spearmanr


def rms_forces(path: Path) -> np.ndarray:
    """The column ``rms_force`` of what ``elign score`` wrote, eV/Å, [B]; NaN where there was no answer."""
    return pq.read_table(path, columns=["rms_force"])["rms_force"].to_numpy(zero_copy_only=False)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scored", type=Path, nargs=2, help="what elign score wrote of the same molecules")
    first, second = (rms_forces(path) for path in parser.parse_args().scored)
    if len(first) != len(second):
        parser.error(f"{len(first)} and {len(second)} molecules: score the same file with both force fields")
    judged = np.isfinite(first) & np.isfinite(second)
    pairs = (first[judged], second[judged])
    interval = bootstrap(
        pairs, spearman, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=0
    ).confidence_interval
    print(f"{judged.sum()} molecules, {(~judged).sum()} left out")
    print(f"Spearman of RMS force {spearman(*pairs):.4f} ({interval.low:.4f} to {interval.high:.4f})")


if __name__ == "__main__":
    main()
