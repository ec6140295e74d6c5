"""Puts the doubles of TensorRT and pycuda in place for a test, and opens an engine on them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from cuda_driver_double import DriverDouble

from clcr_edge import bundle as bundles
from clcr_edge.runtime import cuda_device
from clcr_edge.runtime.golden import load_golden

DOUBLES = Path(__file__).resolve().parent / "doubles"
_NAMES = ("tensorrt", "pycuda", "pycuda.driver")


class Rig:
    """The doubles, fresh, and what a test needs of a bundle. graphs: the driver's double, None without CUDA graphs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: Path, version: str, graphs: str | None) -> None:
        monkeypatch.setenv("DOUBLE_VERSION", version)
        monkeypatch.syspath_prepend(str(DOUBLES))
        for name in _NAMES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        self.cuda: Any = importlib.import_module("pycuda.driver")
        self.trt: Any = importlib.import_module("tensorrt")
        self.driver = None if graphs is None else DriverDouble(self.cuda, graphs)
        if self.driver is not None:
            monkeypatch.setattr(cuda_device, "load_driver", lambda: self.driver)
        self.bundle = bundles.read(bundle)
        self.golden = load_golden(self.bundle.path / "golden.npz")

    def plan(self) -> bytes:
        """A plan of the fp32 graph, without a build."""
        return f"{self.trt.__version__};;;".encode() + self.bundle.graph("fp32").read_bytes()

    def engine(self, plan: bytes | None = None) -> Any:
        """A TensorRT engine on the doubles."""
        from clcr_edge.runtime.tensorrt_engine import TensorRTEngine

        device = cuda_device.CudaDevice()
        return TensorRTEngine(self.trt, plan or self.plan(), self.bundle.config, "fp32", device)


def purge() -> None:
    """Leave no double behind for the tests that come after."""
    for name in _NAMES:
        sys.modules.pop(name, None)
