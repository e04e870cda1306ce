"""Gradients of chunks: they add up, and the number of threads changes no bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from elign.learner.chunk_gradients import ChunkRunner, Gradients, add_gradients
from elign.learner.loss import LossTerms, fed_grpo_loss


def loss_of(network: nn.Module, rows: Tensor) -> LossTerms:
    size = len(rows)
    return fed_grpo_loss(
        log_prob=network(rows).squeeze(-1),
        log_prob_proximal=torch.zeros(size),
        log_prob_behaviour=torch.zeros(size),
        advantage=rows[:, 0],
        weight=torch.full((size,), 1 / 64),
        kl=None,
        clip_range=0.5,
        kl_coefficient=0.0,
    )


def gradient(network: nn.Sequential, chunks: list[Tensor], num_threads: int) -> Tensor:
    parameters = list(network.parameters())
    runner, total = ChunkRunner(num_threads), Gradients([None] * len(parameters))
    for _, terms, gradients in runner.run(chunks, lambda rows: loss_of(network, rows), parameters):
        assert not terms.loss.requires_grad
        add_gradients(total, gradients)
    runner.close()
    return torch.cat([g.flatten() for g in total if g is not None])


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_chunk_gradients_add_up_to_the_same_bits_on_any_number_of_threads(num_threads: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))
    rows = torch.randn(64, 4)
    chunks = list(rows.split(7))
    got = gradient(network, chunks, num_threads)
    assert torch.equal(got, gradient(network, chunks, 1))
    network.zero_grad()
    loss_of(network, rows).loss.backward()  # type: ignore[no-untyped-call]
    whole = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    assert torch.allclose(got, whole, atol=1e-6)
