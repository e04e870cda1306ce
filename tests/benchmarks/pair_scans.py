"""Every pair of elements pulled apart, by a force field and by GFN2-xTB: a picture, and holes if any.

    python -m tests.benchmarks.pair_scans [--force-field elign-mace-small] [--plot pair_scans.svg]

Ends with exit code 1 where a curve has a hole: attraction inside a bond, or a well where there is no bond.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import read_description
from elign.reward_server.pair_scan import NO_CHECKS, PairScan, scan_pairs
from elign.reward_server.registry import list_force_fields
from elign.reward_server.xtb import Gfn2ForceField

DISTANCES = np.arange(0.3, 5.01, 0.025)


def plot(scans: list[PairScan], judged: list[PairScan], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(3, 5, figsize=(13, 7), sharex=True, sharey=True)
    for axes, own, other in zip(grid.flat, scans, judged, strict=True):
        for scan, style, label in ((other, "0.6", "GFN2-xTB"), (own, "tab:blue", "force field")):
            axes.plot(scan.distances, scan.energy - scan.energy[-1], color=style, label=label)
        axes.axvline(own.bond, color="0.85", linewidth=0.8)
        axes.set_title(own.name, fontsize=9)
        axes.set_ylim(-15, 30)
    grid[0, 0].legend(fontsize=7)
    figure.supxlabel("distance, Å (grey line: sum of covalent radii)")
    figure.supylabel("energy against far apart, eV")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--force-field", default="elign-mace-small", help="one of Elign's own, by name or path"
    )
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    named = {entry.name: entry.path for entry in list_force_fields()}
    folder = named.get(given.force_field) or Path(given.force_field)
    field, elements = (
        MaceForceField.from_folder(folder, checks=NO_CHECKS),
        read_description(folder).spec.elements,
    )
    scans = scan_pairs(field, DISTANCES, elements)
    holes = [hole for scan in scans for hole in scan.holes()]
    print("\n".join(holes) or f"{len(scans)} pairs from {DISTANCES[0]} to {DISTANCES[-1]:.1f} Å: no holes")
    if given.plot is not None:
        plot(scans, scan_pairs(Gfn2ForceField(checks=NO_CHECKS), DISTANCES, elements), given.plot)
    sys.exit(1 if holes else 0)


if __name__ == "__main__":
    main()
