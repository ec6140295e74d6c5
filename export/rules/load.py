"""An ONNX file -> a model, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from clcr_edge.errors import BundleError

_MAX_BYTES = 2 << 30  # protobuf's own limit


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file. Raises `BundleError` if it is corrupt, empty or too large, or a file with its weights is missing."""
    try:
        if path.stat().st_size >= _MAX_BYTES:
            raise BundleError(f"{path}: larger than 2 GiB; a step graph is some megabytes")
        model = onnx.load_model(str(path), format="protobuf")
    except DecodeError:
        raise BundleError(f"{path}: not readable as ONNX (corrupt or cut short); export or copy it again") from None
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        first = next(iter(str(e).splitlines()), type(e).__name__)[:200]
        raise BundleError(f"{path}: not readable as ONNX ({first}); export or copy it again") from None
    if not model.graph.output or not model.opset_import:
        raise BundleError(f"{path}: not an ONNX model (no graph in it); export or copy it again")
    return model
