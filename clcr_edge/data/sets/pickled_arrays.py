"""The names by which numpy pickles arrays, data types, scalars and bytes, and what `safe_pickle` makes of them.

Nothing here imports or calls what a file names: each name stands for a function of ours, which compares what the file announces
with what is there before it makes anything. See `ndarray.__reduce__` and `__reduce_ex__(5)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

_TYPE = re.compile(r"^(?:b1|[iu][1248]|f[248]|[SU][0-9]{1,7}|O8?)$")
_RECONSTRUCT, _NDARRAY, _DTYPE, _SCALAR, _ENCODE, _FROMBUFFER, _BYTES = (
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "_codecs.encode",
    "numpy.core.numeric._frombuffer",
    "__builtin__.bytes",  # with no argument: how old protocols write empty bytes
)


class KnownName:
    """One of the seven names. It stands for something and cannot be called."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class UnfinishedType:
    """A numpy data type under construction."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "|" if code in ("b1", "i1", "u1") else "<"

    @property
    def is_object(self) -> bool:
        """Whether its arrays hold objects: they are read as lists."""
        return self.code[0] == "O"

    def dtype(self) -> np.dtype[Any]:
        """What it became."""
        return np.dtype(self.order.replace("|", "<" if self.code[0] == "U" else "|") + self.code)


class UnfinishedArray:
    """An array under construction. value: what it became."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


class RefusedError(Exception):
    """What the file asks for is not data."""


def _type_of(code: Any, *_: Any) -> UnfinishedType:
    text = bytes(code).decode("latin-1") if isinstance(code, memoryview) else code
    if not isinstance(text, str) or not _TYPE.match(text.lstrip("<>|=")):
        raise RefusedError(f"holds an array of type {ascii(text)[:40]}")
    made = UnfinishedType(text.lstrip("<>|="))
    if text[0] in "<>|=":
        made.order = text[0]
    return made


def _empty_array(kind: Any, *_: Any) -> UnfinishedArray:
    if not (isinstance(kind, KnownName) and kind.name == _NDARRAY):
        raise RefusedError("makes an object that is no plain numpy array")
    return UnfinishedArray()


def _encoded(text: Any, encoding: Any = "utf-8") -> memoryview:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("encodes text in another way than numpy does")
    return memoryview(text.encode("latin-1"))


def _scalar(kind: Any, content: Any) -> Any:
    values = array_of(content, kind, (1,), False)
    if not isinstance(values, np.ndarray):
        raise RefusedError("holds a scalar object")
    return values.tolist()[0]


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> UnfinishedArray:
    made = UnfinishedArray()
    made.value = array_of(content, kind, shape, order == "F")
    return made


def array_of(content: Any, kind: Any, shape: Any, fortran: bool) -> Any:
    """A view of `content`, or the list that it is. Raises `ValueError` if the shape announced is not that of what is there."""
    if not isinstance(kind, UnfinishedType):
        raise RefusedError("holds an array without a type")
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array of no proper shape")
    count = 1
    for n in shape:
        count *= n
    if kind.is_object:
        if not isinstance(content, list) or len(content) != count or len(shape) != 1:
            raise ValueError(f"an object array of shape {shape} with {len(content)} entries")
        return content
    data = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(data, (memoryview, bytes)):
        raise ValueError("an array without content")
    dtype = kind.dtype()
    # Before anything is made: what the header says against what is there.
    if dtype.itemsize == 0 or count * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and {dtype} with {len(data)} bytes")
    flat = np.frombuffer(data, dtype) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


# Every name that a file may ask for, by numpy's module names before 2.0; all else is refused.
CALLS: dict[str, Callable[..., Any]] = {
    _RECONSTRUCT: _empty_array,
    _DTYPE: _type_of,
    _SCALAR: _scalar,
    _ENCODE: _encoded,
    _FROMBUFFER: _from_buffer,
    _NDARRAY: lambda *_: _empty_array(None),
    _BYTES: lambda: memoryview(b""),
}
