"""The device side of the TensorRT engine, on pycuda: memory, copies, one stream of our own, and CUDA graphs where they exist.

Never run by this project on a GPU so far (docs/jetson.md says how to report): names are held to pycuda's source by a test, and
the engine above it is tested on a double of this.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clcr_edge.errors import MissingPartError
from clcr_edge.runtime.cuda_driver import load_driver
from clcr_edge.runtime.cuda_graph import CudaGraph, capture
from clcr_edge.runtime.tensorrt_api import first_line

if TYPE_CHECKING:
    import pycuda.driver as cuda

Bytes = npt.NDArray[np.uint8]


def load_pycuda() -> Any:
    """pycuda.driver, initialised. Raises `MissingPartError` with the command that installs it."""
    try:
        api = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError:
        raise MissingPartError(
            f"pycuda is not installed for {sys.executable}; it is compiled on the device: "
            "export PATH=/usr/local/cuda/bin:$PATH && pip install pycuda"
        ) from None
    except (ImportError, OSError) as e:
        raise MissingPartError(
            f"pycuda cannot load CUDA ({first_line(e)}); install it again after the last change of CUDA: "
            "pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda"
        ) from None
    try:
        api.init()
    except api.Error as e:
        raise MissingPartError(f"CUDA finds no usable GPU ({first_line(e)}); see clcr-edge doctor") from None
    return api


class DeviceMemory:
    """Memory on the device, zero at first. address: where it begins, aligned to 256 bytes at least."""

    def __init__(self, allocation: cuda.DeviceAllocation, size: int) -> None:
        self._allocation = allocation
        self.address, self.size = int(allocation), size


class SharedMemory:
    """Memory that both sides see: `host`, and the same bytes at `address` on the device.

    On an integrated GPU one page-locked block, mapped: no copy at all. Otherwise such a block and its twin on the device.
    """

    def __init__(self, device: CudaDevice, size: int) -> None:
        api, self._device = device.api, device
        self._twin: cuda.DeviceAllocation | None = None
        if device.integrated:
            self.host: Bytes = api.pagelocked_empty(size, np.uint8, mem_flags=api.host_alloc_flags.DEVICEMAP)
            base: cuda.PagelockedHostAllocation = self.host.base  # pycuda hangs it there
            self.address = int(base.get_device_pointer())
        else:
            self.host = api.pagelocked_empty(size, np.uint8)
            self._twin = api.mem_alloc(size)
            self.address = int(self._twin)
        self.host[:] = 0

    def to_device(self) -> None:
        """Queue the copy of all bytes to the device, if one is needed."""
        if self._twin is not None:
            self._device.api.memcpy_htod_async(self._twin, self.host, self._device.stream)

    def to_host(self) -> None:
        """Queue the copy back, if one is needed; valid after `synchronize`."""
        if self._twin is not None:
            self._device.api.memcpy_dtoh_async(self.host, self._twin, self._device.stream)


class CudaDevice:
    """One GPU with a stream of its own, in the primary context (which TensorRT uses as well). Raises `MissingPartError`."""

    def __init__(self, index: int = 0) -> None:
        self.api = api = load_pycuda()
        if api.Device.count() <= index:
            raise MissingPartError(f"no GPU {index}: CUDA lists {api.Device.count()}; clcr-edge doctor says what there is")
        gpu: cuda.Device = api.Device(index)
        self.name = str(gpu.name())
        major, minor = gpu.compute_capability()
        self.compute_capability = f"{major}.{minor}"
        self.multiprocessors = int(gpu.get_attribute(api.device_attribute.MULTIPROCESSOR_COUNT))
        self.integrated = bool(gpu.get_attribute(api.device_attribute.INTEGRATED))
        self._context: cuda.Context = gpu.retain_primary_context()
        with self.current():
            # Not the default stream: it cannot be captured, and it waits for everybody else's work.
            self.stream: cuda.Stream = api.Stream()
        self.stream_handle = int(self.stream.handle)
        try:
            self._driver = load_driver()
        except MissingPartError:  # no graphs, then; everything else goes through pycuda
            self._driver = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device current in this thread. pycuda wants its stack of contexts empty when the program ends."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def free_bytes(self) -> int:
        """Memory that an allocation could have now, as CUDA says."""
        with self.current():
            return int(self.api.mem_get_info()[0])

    def memory(self, size: int) -> DeviceMemory:
        """Zeroed device memory."""
        made = DeviceMemory(self.api.mem_alloc(size), size)
        self.zero(made)
        return made

    def zero(self, memory: DeviceMemory) -> None:
        """Queue filling a memory with zeros."""
        self.api.memset_d8_async(memory.address, 0, memory.size, self.stream)

    def shared(self, size: int) -> SharedMemory:
        """Zeroed memory that both sides see."""
        return SharedMemory(self, size)

    def read(self, memory: DeviceMemory) -> Bytes:
        """All bytes of a memory, after everything queued so far."""
        self.synchronize()
        host = np.empty(memory.size, np.uint8)
        self.api.memcpy_dtoh(host, memory.address)
        return host

    def write(self, memory: DeviceMemory, data: Bytes) -> None:
        """Fill a memory, after everything queued so far."""
        self.synchronize()
        self.api.memcpy_htod(memory.address, data)

    def synchronize(self) -> None:
        """Wait for everything queued."""
        self.stream.synchronize()

    def graph(self, work: Callable[[], bool]) -> CudaGraph | None:
        """What `work` queues on the stream, as a graph; None where it cannot be had."""
        return None if self._driver is None else capture(self._driver, self.stream_handle, work)
