"""Which of a bundle's graphs TensorRT builds for a precision. The u8 graph for CPUs is never one of them."""

from __future__ import annotations

from pathlib import Path

from clcr_edge.bundle import Bundle
from clcr_edge.errors import BundleError

# Precision asked for -> name in the manifest's [graphs].
_GRAPHS = {"fp32": "fp32", "fp16": "trt-fp16", "int8": "trt-int8"}


def tensorrt_precisions(bundle: Bundle) -> tuple[str, ...]:
    """The precisions in which this bundle can be built, fp32 first."""
    return tuple(p for p, name in _GRAPHS.items() if name in bundle.manifest["graphs"])


def tensorrt_graph(bundle: Bundle, precision: str) -> Path:
    """The ONNX file to build for a precision. Raises `BundleError` naming the precisions there are."""
    if precision not in tensorrt_precisions(bundle):
        there = ", ".join(tensorrt_precisions(bundle)) or "none"
        raise BundleError(f"{bundle.path}: no {precision} graph for TensorRT; this bundle has {there}")
    return bundle.graph(_GRAPHS[precision])
