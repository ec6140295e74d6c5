"""An ONNX file -> a model, or one line that says why not."""

from __future__ import annotations

from collections.abc import Iterator
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
    if any(isinstance(name, bytes) for name in _names(model)):  # protobuf gives bytes for text that is none
        raise BundleError(f"{path}: not readable as ONNX (a name in it is no text); export or copy it again")
    if not model.graph.output or not model.opset_import:
        raise BundleError(f"{path}: not an ONNX model (no graph in it); export or copy it again")
    return model


def _names(model: onnx.ModelProto) -> Iterator[str]:
    graph = model.graph
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    for held in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        yield held.name
    yield from (o.domain for o in model.opset_import)
    values = (*graph.input, *graph.output, *graph.value_info)
    yield from (d.dim_param for v in values for d in v.type.tensor_type.shape.dim)
