"""What is pickled is what is held: slices alone, equal values, tensors that can be written to."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import torch

from elign.common.molecules import Molecules
from elign.common.scoring import Failure, ForceFieldResult


def molecules(count: int) -> Molecules:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(1, 9, (count, 5), generator=generator)
    return Molecules(torch.randn(count, 5, 3, generator=generator), numbers, torch.ones_like(numbers) > 0)


def test_a_slice_travels_without_the_rest() -> None:
    part = molecules(10_000)[100:102]
    data = pickle.dumps(part)
    assert len(data) < 2_000
    again = pickle.loads(data)  # noqa: S301
    for field in fields(part):
        assert torch.equal(getattr(again, field.name), getattr(part, field.name))
        assert getattr(again, field.name).dtype == getattr(part, field.name).dtype
    again.positions.zero_()


def test_transposed_and_empty_tensors_and_plain_values_arrive() -> None:
    forces = torch.arange(24.0).view(2, 3, 4).transpose(1, 2)[..., :3].requires_grad_()
    energy = torch.tensor([1.0, torch.nan], dtype=torch.float64)
    result = ForceFieldResult(energy, forces, energy, (None, Failure.SEVERAL_PIECES))
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert torch.equal(again.forces, forces.detach())
    assert torch.equal(again.energy.isnan(), energy.isnan())
    assert again.failures == result.failures
    nothing = replace(molecules(1), positions=torch.zeros(0, 0, 3), atomic_numbers=torch.zeros(0, 0).long(),
                      node_mask=torch.zeros(0, 0, dtype=torch.bool))  # fmt: skip
    assert len(pickle.loads(pickle.dumps(nothing))) == 0  # noqa: S301


def test_arrays_that_may_not_be_written_to_become_tensors_that_may() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(molecules(3), protocol=5, buffer_callback=buffers.append)
    frozen = [bytes(buffer.raw()) for buffer in buffers]
    again = pickle.loads(data, buffers=frozen)  # noqa: S301
    again.positions.add_(1.0)
    assert torch.allclose(again.positions, molecules(3).positions + 1)
