"""Dataclasses of tensors that travel between processes with what they hold, and nothing else.

torch pickles a slice with the whole storage it is a view of, and a small tensor in many pieces. Here tensors
travel as bytes: megabytes less where a batch is cut out of a data set, and a small part of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class CompactPickle:
    """Mixin for dataclasses; tensors arrive on the CPU, and may be written to."""

    def __reduce__(self) -> tuple[Any, ...]:
        values = [getattr(self, name) for name in self.__dataclass_fields__]  # type: ignore[attr-defined]
        tensors = [isinstance(value, Tensor) for value in values]
        packed = [_pack(value) if isinstance(value, Tensor) else value for value in values]
        return _rebuild, (type(self), tensors, packed)


def _pack(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    array = tensor.detach().cpu().numpy()
    return array.dtype.str, array.shape, array.tobytes()


def _unpack(kind: str, shape: tuple[int, ...], content: bytes) -> Tensor:
    return torch.from_numpy(np.ndarray(shape, kind, bytearray(content)))  # a copy: bytes are read-only


def _rebuild(kind: type, tensors: list[bool], values: list[Any]) -> Any:
    pairs = zip(tensors, values, strict=True)
    return kind(*(_unpack(*value) if is_tensor else value for is_tensor, value in pairs))
