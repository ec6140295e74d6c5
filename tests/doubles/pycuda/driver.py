"""A double of pycuda.driver: memory is host memory at true addresses, and what is queued on a stream runs at `synchronize`.

It proves which bytes are read, written and copied when, not that a GPU does the same. Its names are held to pycuda's own source
by test_tensorrt_names.py. What a test sets: `gpu`. What it reads: `counts`.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

gpu: dict[str, Any] = {
    "name": os.environ.get("DOUBLE_GPU", "Orin"),
    "capability": (8, 7),
    "multiprocessors": 16,
    "integrated": int(os.environ.get("DOUBLE_INTEGRATED", "0")),
    "free": 32 << 30,
    "fails": False,
}
counts: Counter[str] = Counter()
capturing: list[Callable[[], object]] | None = None
_pushed: list[object] = []


class Error(Exception):
    """pycuda's own root."""


def init() -> None: ...


class device_attribute:  # noqa: N801 - pycuda's name
    MULTIPROCESSOR_COUNT = "multiprocessors"
    INTEGRATED = "integrated"


class host_alloc_flags:  # noqa: N801 - pycuda's name
    DEVICEMAP = 2


class Context:
    handle = 1

    def push(self) -> None:
        _pushed.append(self)

    @staticmethod
    def pop() -> None:
        _pushed.pop()


class Device:
    def __init__(self, index: int) -> None:
        self.index = index

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return str(gpu["name"])

    def compute_capability(self) -> tuple[int, int]:
        return gpu["capability"]  # type: ignore[no-any-return]

    def get_attribute(self, attribute: str) -> int:
        return int(gpu[attribute])

    def retain_primary_context(self) -> Context:
        return Context()


class Stream:
    def __init__(self) -> None:
        assert _pushed, "no context is current"
        self.queue: list[Callable[[], object]] = []
        self.handle = id(self)
        streams[self.handle] = self

    def add(self, work: Callable[[], object]) -> None:
        (self.queue if capturing is None else capturing).append(work)

    def synchronize(self) -> None:
        assert capturing is None, "a stream that is being captured cannot be waited for"
        if gpu["fails"]:
            raise Error("cuStreamSynchronize failed: an illegal memory access was encountered")
        work, self.queue = self.queue, []
        for item in work:
            item()


streams: dict[int, Stream] = {}


def _aligned(size: int) -> np.ndarray[Any, Any]:
    block = np.full(size + 256, 0xA5, np.uint8)  # not zero: a device's memory is not either
    start = -block.ctypes.data % 256
    return block[start : start + size]


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self._block = _aligned(size)

    def __int__(self) -> int:
        return int(self._block.ctypes.data)


class PagelockedHostAllocation:
    """Hangs under the array, as pycuda's does: `array.base`."""

    def __init__(self, size: int) -> None:
        self._block = _aligned(size)
        self.__array_interface__ = self._block.__array_interface__

    def get_device_pointer(self) -> int:
        return int(self._block.ctypes.data)


def mem_alloc(size: int) -> DeviceAllocation:
    assert _pushed, "no context is current"
    counts["allocated"] += size
    return DeviceAllocation(size)


def mem_get_info() -> tuple[int, int]:
    return gpu["free"], 64 << 30


def pagelocked_empty(size: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray[Any, Any]:
    assert dtype == np.uint8
    return np.asarray(PagelockedHostAllocation(size))


def memset_d8_async(dest: int, data: int, size: int, stream: Stream) -> None:
    stream.add(lambda: ctypes.memset(dest, data, size))


def memcpy_htod_async(dest: DeviceAllocation, src: np.ndarray[Any, Any], stream: Stream) -> None:
    counts["to device"] += src.nbytes
    stream.add(lambda: ctypes.memmove(int(dest), src.ctypes.data, src.nbytes))


def memcpy_dtoh_async(dest: np.ndarray[Any, Any], src: DeviceAllocation, stream: Stream) -> None:
    counts["to host"] += dest.nbytes
    stream.add(lambda: ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes))


def memcpy_dtoh(dest: np.ndarray[Any, Any], src: int) -> None:
    counts["to host"] += dest.nbytes
    ctypes.memmove(dest.ctypes.data, src, dest.nbytes)


def memcpy_htod(dest: int, src: np.ndarray[Any, Any]) -> None:
    counts["to device"] += src.nbytes
    ctypes.memmove(dest, np.ascontiguousarray(src).ctypes.data, src.nbytes)
