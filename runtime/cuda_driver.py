"""The CUDA driver through ctypes: which GPUs there are, known before pycuda or TensorRT is installed, and the calls for CUDA
graphs, which pycuda does not have. Names and prototypes as in cuda.h; they are part of the driver's stable ABI.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from clcr_edge.errors import MissingPartError

_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76  # CUdevice_attribute

# Pointers are c_void_p throughout: a missing argtypes entry would cut a 64-bit handle to 32 bits. Every call returns CUresult.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}


@dataclass(frozen=True)
class Gpu:
    """A GPU. compute_capability as "8.7"; total_bytes: its memory, which an integrated one shares with the CPU."""

    index: int
    name: str
    compute_capability: str
    multiprocessors: int
    integrated: bool
    total_bytes: int


def load_driver(path: str | None = None) -> Any:
    """The driver library with prototypes set, initialised. Raises `MissingPartError` if there is none or it refuses."""
    name = path or ("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise MissingPartError(
            f"no NVIDIA driver on this machine ({name} not found); a Jetson has it after flashing JetPack, a PC after "
            "installing the NVIDIA driver"
        ) from None
    for call, arguments in PROTOTYPES.items():
        function = getattr(library, call, None)
        if function is None:
            raise MissingPartError(f"the NVIDIA driver is too old: it has no {call}; CUDA 12 or newer is needed")
        function.argtypes, function.restype = arguments, c_int
    code = library.cuInit(0)
    if code:
        raise MissingPartError(f"the NVIDIA driver finds no usable GPU ({error_name(library, code)}); check nvidia-smi")
    return library


def error_name(library: Any, code: int) -> str:
    """CUDA_ERROR_... of a result code."""
    text = c_char_p()
    if library.cuGetErrorName(code, ctypes.byref(text)) or text.value is None:
        return f"CUDA error {code}"
    return text.value.decode("ascii", "replace")


def driver_version(library: Any) -> str:
    """The newest CUDA version that the driver serves, as "12.6"."""
    number = c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def gpus(library: Any) -> list[Gpu]:
    """Every GPU that the driver lists. Raises `MissingPartError` if it refuses."""

    def ask(call: str, *arguments: Any) -> None:
        code = getattr(library, call)(*arguments)
        if code:
            raise MissingPartError(f"the NVIDIA driver refuses {call} ({error_name(library, code)}); restart the machine")

    count, found = c_int(), []
    ask("cuDeviceGetCount", ctypes.byref(count))
    for index in range(count.value):
        device, name, total = c_int(), ctypes.create_string_buffer(256), c_size_t()
        ask("cuDeviceGet", ctypes.byref(device), index)
        ask("cuDeviceGetName", name, len(name), device)
        ask("cuDeviceTotalMem_v2", ctypes.byref(total), device)
        values = []
        for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED):
            value = c_int()
            ask("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            values.append(value.value)
        major, minor, multiprocessors, integrated = values
        label = name.value.decode("utf-8", "replace")
        found.append(Gpu(index, label, f"{major}.{minor}", multiprocessors, bool(integrated), total.value))
    return found
