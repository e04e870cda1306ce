"""Real molecules beside sampled ones: some to be judged alike, as the ceiling; the rest as the reference.

chosen, rest = split_ceiling(data, sizes, seed=0)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elign.common.errors import DataError
from elign.common.molecules import Molecules

MAX_REFERENCE = 20_000


def split_ceiling(data: Molecules, sizes: Sequence[int], *, seed: int) -> tuple[Molecules, Molecules]:
    """(molecules of those sizes in that order, others for reference), drawn by ``seed``.

    Where the data have no further molecule of a size, any other takes its place. Raises DataError when the
    data are not at least two more than the sizes.
    """
    if len(data) < len(sizes) + 2:
        raise DataError(f"{len(data)} molecules of data are too few beside {len(sizes)} sampled ones")
    order = np.random.default_rng(seed).permutation(len(data))
    own = data.num_atoms.cpu().numpy()[order]
    by_size = {int(size): list(order[own == size]) for size in np.unique(own)}
    found: list[int | None] = [by_size[size].pop() if by_size.get(size) else None for size in sizes]
    taken = {i for i in found if i is not None}
    others = iter([int(i) for i in order if i not in taken])
    chosen = [next(others) if i is None else int(i) for i in found]
    rest = list(others)[:MAX_REFERENCE]
    return data[chosen], data[rest]
