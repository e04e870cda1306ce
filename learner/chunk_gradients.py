"""The gradient of a minibatch from its chunks, several at a time, with the same bits on any number of cores.

A row's loss depends on that row alone, so chunk gradients add up. On a CPU each chunk runs on one thread: no
core waits for another within an operation, which on a busy machine costs many times the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from elign.learner.loss import LossTerms

Chunk = TypeVar("Chunk")
Gradients = list[Tensor | None]


class ChunkRunner:
    """Threads that live as long as this object; ``num_threads`` 1 works in the caller's."""

    def __init__(self, num_threads: int) -> None:
        self._threads = (
            ThreadPoolExecutor(num_threads, "gradient", torch.set_num_threads, (1,))
            if num_threads > 1
            else None
        )

    def run(
        self, chunks: Sequence[Chunk], loss: Callable[[Chunk], LossTerms], parameters: Sequence[nn.Parameter]
    ) -> Iterator[tuple[Chunk, LossTerms, Gradients]]:
        """Each chunk with its terms (detached) and its gradients, in the order of ``chunks``."""

        def work(chunk: Chunk) -> tuple[Chunk, LossTerms, Gradients]:
            terms = loss(chunk)
            gradients = torch.autograd.grad(terms.loss, parameters, allow_unused=True)
            return chunk, replace(terms, loss=terms.loss.detach()), list(gradients)

        return map(work, chunks) if self._threads is None else self._threads.map(work, chunks)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()


def add_gradients(total: Gradients, more: Iterable[Tensor | None]) -> None:
    """Add ``more`` to ``total`` in place."""
    for i, gradient in enumerate(more):
        if gradient is not None:
            present = total[i]
            total[i] = gradient if present is None else present.add_(gradient)


def average_over_learners(gradients: Gradients) -> Gradients:
    """The mean over all processes of the group, in one message; every learner gets the same."""
    present = [gradient for gradient in gradients if gradient is not None]
    flat = torch.cat([gradient.flatten() for gradient in present])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    parts = iter(flat.split([gradient.numel() for gradient in present]))
    return [None if gradient is None else next(parts).view_as(gradient) for gradient in gradients]
