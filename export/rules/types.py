"""Rules on types: no 64-bit floats, no odd integers, an opset that every target reads, constants that are numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from clcr_edge.export.rules.finding import Hit, rule
from clcr_edge.export.rules.view import QDQ, GraphView, equation, type_name

OPSETS = range(9, 21)
_KNOWN = {
    TensorProto.UNDEFINED,  # not inferred
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.INT8,
    TensorProto.BOOL,
    TensorProto.DOUBLE,  # its own rule
}


@rule("malformed-node", "export the graph again")
def malformed_node(view: GraphView) -> Iterator[Hit]:
    """Fewer inputs than the operator needs, or an equation that is none."""
    for node in view.malformed:
        what = f"equation {equation(node)!r}, " if node.op_type == "Einsum" else ""
        yield Hit(node, f"{node.op_type} with {what}{len(node.input)} inputs and {len(node.output)} outputs cannot be")


@rule("opset", "export with opset 19 or 20")
def opset(view: GraphView) -> Iterator[Hit]:
    """What the parsers of 10.0 and 10.1 document."""
    if view.opset not in OPSETS:
        yield Hit("opset", f"opset {view.opset}; TensorRT 10.3 reads {OPSETS.start} to {OPSETS.stop - 1}")


@rule("float64", "float32: torch's and numpy's defaults slip in through Python numbers")
def float64(view: GraphView) -> Iterator[Hit]:
    """TensorRT casts them to FP32, clamping; ONNX Runtime does not: the two disagree. Told where each begins."""
    for name, kind in view.types.items():
        if kind != TensorProto.DOUBLE:
            continue
        node = view.producer.get(name)
        if node is None or node.op_type == "Constant":
            yield Hit(name, f"{name} is a 64-bit float")
        elif not any(view.types.get(i) == TensorProto.DOUBLE for i in node.input):
            yield Hit(node, f"{node.op_type} makes 64-bit floats")


@rule("unsupported-type", "INT32 or INT64 for integers, FP32 or FP16 for floats")
def unsupported_type(view: GraphView) -> Iterator[Hit]:
    """UINT8 may enter and leave the network, but not live in it."""
    edges = {v.name for v in (*view.inputs, *view.outputs)}
    for name, kind in view.types.items():
        if kind in _KNOWN or (kind == TensorProto.UINT8 and name in edges):
            continue
        around = [*view.readers.get(name, []), *([view.producer[name]] if name in view.producer else [])]
        if any(n.op_type in QDQ for n in around):
            continue  # the rules on quantisation speak of it
        yield Hit(view.producer.get(name, name), f"{name} is of type {type_name(kind)}, which TensorRT does not compute with")


@rule("constant-not-a-number", "a mask value inside FP16's range (-3e4, say), and a weight below 65504")
def constant_not_a_number(view: GraphView) -> Iterator[Hit]:
    """NaN anywhere, or what overflowed when it was cast to FP16."""
    for name, tensor in view.constants.items():
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        value = view.constant(name)
        if value is None:
            continue
        numbers = np.asarray(value, np.float32)
        if np.isnan(numbers).any():
            yield Hit(name, f"constant {name} holds NaN")
        elif tensor.data_type == TensorProto.FLOAT16 and not np.isfinite(numbers).all():
            yield Hit(name, f"constant {name} holds infinity in FP16: it did not fit")


RULES = (malformed_node, opset, float64, unsupported_type, constant_not_a_number)
