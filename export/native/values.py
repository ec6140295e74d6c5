"""Where a tensor lies: a buffer, and a numpy view of it that holds nothing but an offset, a shape and strides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_C_TYPES = {"float32": "float", "int32": "int32_t", "int64": "int64_t", "bool": "uint8_t"}


def is_known(dtype: str) -> bool:
    """Whether C has a type for elements of this kind."""
    return dtype in _C_TYPES


@dataclass(eq=False)
class Buffer:
    """Memory of one kind: `given` (the caller's), `weights`, `literal` (one number, written into the code), `scratch`, or
    `bordered` (zeroed once: its border stays).

    pointer: its name in C. memory: stands for it in numpy, so that numpy does the arithmetic of views. offset: bytes from the
    start of the weights or of the scratch memory. first, last: the pieces of C that touch it first and last.
    """

    pointer: str
    kind: str
    memory: Array
    offset: int = 0
    first: int = -1
    last: int = -1

    @property
    def ctype(self) -> str:
        """The type of its elements in C."""
        return _C_TYPES[str(self.memory.dtype)]


@dataclass(eq=False)
class Value:
    """A tensor: a view into a buffer. constant: its numbers, where they are known before anything runs."""

    buffer: Buffer
    view: Array
    constant: Array | None = field(default=None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.view.shape

    @property
    def offset(self) -> int:
        """Elements from the buffer's start to the first one."""
        start = self.buffer.memory.__array_interface__["data"][0]
        return int(self.view.__array_interface__["data"][0] - start) // self.view.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one to the next, by axis."""
        return tuple(s // self.view.itemsize for s in self.view.strides)

    def seen_as(self, view: Array, constant: Array | None = None) -> Value:
        """Another view of the same buffer."""
        return Value(self.buffer, view, constant)


ALIGN = 64  # bytes: where every tensor of the weights and of the scratch memory begins


def new_buffer(pointer: str, kind: str, shape: tuple[int, ...], dtype: Any) -> Value:
    """A contiguous tensor in a buffer of its own."""
    memory = np.zeros(shape, dtype)
    return Value(Buffer(pointer, kind, memory), memory)


def reshaped(view: Array, shape: tuple[int, ...]) -> Array | None:
    """The view in another shape where no copy is needed for it, else None."""
    other = view.reshape(shape)
    return other if np.may_share_memory(other, view) else None
