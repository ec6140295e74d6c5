"""Which of a bundle's graphs TensorRT builds for a precision, and which are left to CPUs.

The u8 graph for CPUs is never built: TensorRT refuses it. The graphs made for TensorRT are not verified on CPUs,
where they are slow.
"""

from __future__ import annotations

from pathlib import Path

from clcr_edge.bundle import Bundle, check_precision
from clcr_edge.errors import BundleError

# Precision asked for -> name in the manifest's [graphs].
GRAPHS = {"fp32": "fp32", "fp16": "trt-fp16", "int8": "trt-int8"}


def tensorrt_precisions(bundle: Bundle) -> tuple[str, ...]:
    """The precisions in which this bundle can be built, fp32 first."""
    return tuple(p for p, name in GRAPHS.items() if name in bundle.manifest["graphs"])


def cpu_precisions(bundle: Bundle) -> tuple[str, ...]:
    """The precisions that are meant for a CPU, fp32 first."""
    ours = {name for precision, name in GRAPHS.items() if precision != "fp32"}
    return tuple(sorted((p for p in bundle.precisions if p not in ours), key=lambda p: (p != "fp32", p)))


def tensorrt_graph(bundle: Bundle, precision: str) -> Path:
    """The ONNX file to build for a precision. Raises `BundleError` naming the precisions there are."""
    if precision not in tensorrt_precisions(bundle):
        check_precision(precision)
        there = ", ".join(tensorrt_precisions(bundle)) or "none"
        raise BundleError(f"{bundle.path}: no {precision} graph for TensorRT; this bundle has {there}")
    return bundle.graph(GRAPHS[precision])
