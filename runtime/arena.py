"""Several tensors in one block of memory, so that a tick costs one copy each way and a state is one address."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 256  # what TensorRT asks of a tensor's address


@dataclass(frozen=True)
class Tensor:
    """A tensor's place in a block: offset in bytes, shape, dtype."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Arena:
    """The layout of a block. Every tensor begins at a multiple of 256 bytes."""

    def __init__(self, tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        self.tensors: dict[str, Tensor] = {}
        end = 0
        for name, (shape, dtype) in tensors.items():
            self.tensors[name] = Tensor(end, shape, dtype)
            size = math.prod(shape) * dtype.itemsize
            end += -(-max(size, 1) // _ALIGNMENT) * _ALIGNMENT
        self.size = max(end, _ALIGNMENT)

    def views(self, block: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """The tensors of a block on the host, as views into it. block: uint8 `[size]`."""
        made = {}
        for name, t in self.tensors.items():
            size = math.prod(t.shape) * t.dtype.itemsize
            made[name] = block[t.offset : t.offset + size].view(t.dtype).reshape(t.shape)
        return made
