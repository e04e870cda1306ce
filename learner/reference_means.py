"""Means of the reference policy's transitions: computed once a row, however many epochs go over it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from elign.common.policy import DiffusionPolicy
from elign.learner.transitions import CONTEXT, NODE_MASK, ROW, WEIGHT, Z_T, S, T


class ReferenceMeans:
    """Remembers the means of one iteration's rows."""

    def __init__(self, reference: DiffusionPolicy, num_rows: int) -> None:
        """num_rows: of the whole iteration, over all learners; ``ROW`` numbers them."""
        self._reference = reference
        self._num_rows = num_rows
        self._known: Tensor | None = None
        self._means: Tensor | None = None

    def prepare(self, batch: Mapping[str, Tensor]) -> None:
        """Make room before the first chunk of a minibatch [B, N, D] asks; all minibatches have one width."""
        if self._known is None:
            z = batch[Z_T]
            self._known = torch.zeros(self._num_rows, dtype=torch.bool, device=z.device)
            self._means = z.new_zeros(self._num_rows, *z.shape[1:])

    @torch.no_grad()
    def of(self, chunk: Mapping[str, Tensor]) -> Tensor:
        """[b, n, D] means of a chunk's rows. Several threads may ask at once: each row has one value."""
        assert self._known is not None
        assert self._means is not None
        width = chunk[NODE_MASK].shape[1]
        real = chunk[WEIGHT] > 0  # a filling row is the copy of one that another chunk may be writing
        rows = chunk[ROW][real]
        if bool(self._known[rows].all()):
            return self._means[chunk[ROW], :width]
        mu = self._reference.transition(
            chunk[Z_T], chunk[T], chunk[S], chunk[NODE_MASK], chunk.get(CONTEXT)
        ).mu
        self._means[rows, :width] = mu[real]
        self._known[rows] = True
        return mu
