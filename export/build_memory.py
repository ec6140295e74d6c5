"""Whether a build can fit, asked before it starts: on an 8 GB board the kernel kills what asks for too much, without a word."""

from __future__ import annotations

MIB = 1 << 20
# What CUDA and TensorRT's own libraries and kernels take before any layer is tried. A judgement from reports on 8 GB boards
# (shared facts name one that died at 2.7 GB free with a 4 GB request), not a measurement of ours: hence --force.
_LIBRARIES = 900 * MIB
_COPIES = 8  # of the weights: parsed, folded, tried in two or three types, serialized


def needed_bytes(onnx_bytes: int, workspace_mib: int) -> int:
    """An estimate of the memory that a build takes at its peak."""
    return _LIBRARIES + workspace_mib * MIB + _COPIES * onnx_bytes


def shortage(needed: int, available: int, workspace_mib: int) -> str:
    """Why the build should not start and what would help; "" if it fits."""
    if needed <= available:
        return ""
    remedy = "close the desktop (sudo systemctl isolate multi-user.target) and other programs"
    if workspace_mib > 64 and needed - (workspace_mib - 64) * MIB <= available:
        remedy += ", or give --workspace 64"
    return (
        f"the build needs about {needed // MIB} MiB and {available // MIB} MiB are free: {remedy}; "
        "--force tries all the same"
    )
