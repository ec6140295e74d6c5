"""Rules on Q/DQ: TensorRT quantises symmetrically, signed, per tensor for activations, and never a bias.

Sources: NvInfer.h (IQuantizeLayer, IDequantizeLayer), onnx-tensorrt's importer, NVIDIA's pages on explicit quantisation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from clcr_edge.export.rules.finding import Hit, rule
from clcr_edge.export.rules.view import MOVEMENT, QDQ, GraphView, attribute, type_name, unseen

_EXPORT = "quantise symmetrically, as clcr-edge export --target tensorrt does"
_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MAY_READ = {*_WEIGHTED, "Add", "MaxPool", "AveragePool", "GlobalAveragePool", *QDQ}


def _is_bias(view: GraphView, node: onnx.NodeProto) -> bool:
    """Is a DQ node read as a bias, and as nothing else?"""
    readers = view.readers.get(node.output[0], [])
    return bool(readers) and all(
        r.op_type in _WEIGHTED and len(r.input) > 2 and r.input[2] == node.output[0] and node.output[0] not in r.input[:2]
        for r in readers
    )


def _behind_quantise(view: GraphView, node: onnx.NodeProto) -> bool:
    """Is it the DQ of a pair? What both share is told of the Q alone."""
    made = view.producer.get(node.input[0])
    return node.op_type == "DequantizeLinear" and made is not None and made.op_type == "QuantizeLinear"


def _told(view: GraphView, node: onnx.NodeProto, index: int) -> bool:
    if not _behind_quantise(view, node):
        return False
    first = view.producer[node.input[0]].input
    return len(first) > index and first[index] == node.input[index]


@rule("uint8-zero-point", f"signed 8 bit with zero point 0; {_EXPORT}")
def uint8_zero_point(view: GraphView) -> Iterator[Hit]:
    """What CPUs like best, and TensorRT refuses."""
    for node in view.of_type(*QDQ):
        if view.zero_point_type(node) == TensorProto.UINT8 and not _behind_quantise(view, node):
            yield Hit(node, f"{node.op_type} with UINT8 codes; TensorRT takes INT8 only")


@rule("quantised-type", "INT8 codes")
def quantised_type(view: GraphView) -> Iterator[Hit]:
    """Neither INT8 nor UINT8 (which has a rule of its own)."""
    for node in view.of_type(*QDQ):
        kind = view.zero_point_type(node)
        if kind not in (None, TensorProto.INT8, TensorProto.UINT8) and not _is_bias(view, node):
            yield Hit(node, f"{node.op_type} with {type_name(kind)} codes; TensorRT takes INT8 here")


@rule("no-zero-point", "give QuantizeLinear an INT8 zero point of 0")
def no_zero_point(view: GraphView) -> Iterator[Hit]:
    """One file, two meanings."""
    for node in view.of_type("QuantizeLinear"):
        if view.zero_point_type(node) is None:
            yield Hit(node, "QuantizeLinear without a zero point: ONNX reads UINT8, TensorRT INT8, and the two disagree")


@rule("nonzero-zero-point", f"a zero point of 0; {_EXPORT}")
def nonzero_zero_point(view: GraphView) -> Iterator[Hit]:
    """Asymmetric quantisation."""
    for node in view.of_type(*QDQ):
        if len(node.input) < 3 or not node.input[2] or _told(view, node, 2):
            continue
        zero = view.constant(node.input[2])
        if zero is None:
            if node.input[2] not in view.constants:
                yield Hit(node, f"{node.op_type} with a computed zero point; TensorRT wants the constant 0")
        elif np.any(np.asarray(zero, np.int64)) and view.zero_point_type(node) != TensorProto.UINT8:
            first = int(np.asarray(zero, np.int64).reshape(-1)[np.flatnonzero(zero)[0]])
            yield Hit(node, f"{node.op_type} with zero point {first}; TensorRT takes 0 only")


@rule("scale-not-constant", "calibrate, and write the scale as an initializer")
def scale_not_constant(view: GraphView) -> Iterator[Hit]:
    """A build-time constant in 10.3."""
    for node in view.of_type(*QDQ):
        if node.input[1] not in view.constants and not _told(view, node, 1):
            yield Hit(node, f"{node.op_type} with a computed scale; TensorRT wants a constant when building")


@rule("scale-not-positive", "calibrate again: a scale of 0, NaN or infinity comes from a tensor that was constant or broken")
def scale_not_positive(view: GraphView) -> Iterator[Hit]:
    """Zero, negative, NaN, infinite."""
    for node in view.of_type(*QDQ):
        scale = view.constant(node.input[1])
        if scale is not None and not _told(view, node, 1):
            wrong = [x for x in np.asarray(scale, np.float64).reshape(-1) if not (np.isfinite(x) and x > 0)]
            if wrong:
                yield Hit(node, f"{node.op_type} with scale {wrong[0]:g}; TensorRT wants it positive and finite")


@rule("per-axis-activation", "one scale for the whole tensor; a scale per channel is for constant weights")
def per_axis_activation(view: GraphView) -> Iterator[Hit]:
    """Per-axis on anything that is not rooted at a constant."""
    for node in view.of_type(*QDQ):
        count = _scales(view, node)
        if count > 1 and view.root(node.input[0]) is None and not _told(view, node, 1):
            yield Hit(node, f"{node.op_type} with {count} scales on an activation; TensorRT takes one")


@rule("per-axis-weight", "Conv: axis 0; MatMul: the last axis; Gemm: 0 with transB, else 1; one scale per channel")
def per_axis_weight(view: GraphView) -> Iterator[Hit]:
    """The axis must be the output channels', and as long as the scales."""
    for node in view.of_type("DequantizeLinear"):
        count, shape = _scales(view, node), view.shape(node.input[0])
        if count <= 1 or view.root(node.input[0]) is None or not shape or _is_bias(view, node):
            continue
        axis = attribute(node, "axis", 1) % len(shape)
        if shape[axis] != count:
            yield Hit(node, f"{count} scales along axis {axis}, which has {shape[axis]} entries")
            continue
        for reader in view.readers.get(node.output[0], []):
            right = _channel_axis(reader, node.output[0], len(shape))
            if right is not None and axis != right:
                yield Hit(node, f"scales along axis {axis} of the weight of {reader.op_type}; TensorRT wants axis {right}")


def _scales(view: GraphView, node: onnx.NodeProto) -> int:
    shape = view.shape(node.input[1])
    count = 1
    for d in shape or []:
        count *= d if isinstance(d, int) else 1
    return count


def _channel_axis(node: onnx.NodeProto, weight: str, rank: int) -> int | None:
    if len(node.input) < 2 or node.input[1] != weight:
        return None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


@rule("blocked-scale", "one scale for a tensor, or one per output channel of a weight")
def blocked_scale(view: GraphView) -> Iterator[Hit]:
    """Scales of rank 2 and more."""
    for node in view.of_type(*QDQ):
        rank = len(view.shape(node.input[1]) or [])
        if (rank > 1 or attribute(node, "block_size", 0)) and not _told(view, node, 1):
            yield Hit(node, f"{node.op_type} with scales of rank {rank}; for INT8 TensorRT takes rank 0 or 1")


@rule("scale-type", "write the scale in the type of the tensor around it (FP16 tensor: FP16 scale)")
def scale_type(view: GraphView) -> Iterator[Hit]:
    """Strong typing in 10.3: the input of Q has the type of its scale. ONNX's checker lets them differ."""
    for node in view.of_type("QuantizeLinear"):
        data, scale = (view.types.get(name) for name in node.input[:2])
        if data and scale and data != scale:
            yield Hit(node, f"QuantizeLinear of {type_name(data)} with a scale of {type_name(scale)}; strong typing wants one")


@rule("fp16-scale-opset", "export with opset 19 or 20")
def fp16_scale_opset(view: GraphView) -> Iterator[Hit]:
    """FP16 scales came with opset 19."""
    for node in view.of_type(*QDQ):
        if view.opset < 19 and view.types.get(node.input[1]) == TensorProto.FLOAT16 and not _told(view, node, 1):
            yield Hit(node, f"{node.op_type} with an FP16 scale in opset {view.opset}; that came with opset 19")


@rule("quantised-bias", "leave the bias a float initializer: TensorRT quantises it itself")
def quantised_bias(view: GraphView) -> Iterator[Hit]:
    """What ONNX Runtime's quantiser writes by default: INT32 codes."""
    for node in view.of_type("DequantizeLinear"):
        if _is_bias(view, node):
            reader = view.readers[node.output[0]][0]
            kind = type_name(view.types.get(node.input[0], 0))
            yield Hit(node, f"the bias of {reader.op_type} goes through DequantizeLinear ({kind} codes); TensorRT refuses that")


@rule("scalar-quantised", "give the tensor a dimension of 1, or leave it float")
def scalar_quantised(view: GraphView) -> Iterator[Hit]:
    """Q of a scalar tensor."""
    for node in view.of_type("QuantizeLinear"):
        if view.shape(node.input[0]) == []:
            yield Hit(node, "QuantizeLinear of a scalar, which TensorRT refuses")


@rule("dequantise-placement", "Q/DQ belongs in front of Conv, MatMul, Gemm and a residual's Add; leave norms and simplex float")
def dequantise_placement(view: GraphView) -> Iterator[Hit]:
    """A pair in front of Softmax, a norm or the simplex costs accuracy and fuses with nothing."""
    for node in view.of_type("DequantizeLinear"):
        if reader := _wrong_reader(view, node.output[0]):
            yield Hit(node, f"DequantizeLinear in front of {reader.op_type}, which computes in float: the pair only loses bits")


def _wrong_reader(view: GraphView, name: str) -> onnx.NodeProto | None:
    waiting, seen = [name], {name}
    while waiting:
        for reader in view.readers.get(waiting.pop(), []):
            if reader.op_type in MOVEMENT:
                waiting += unseen(reader.output, seen)
            elif reader.op_type not in _MAY_READ:
                return reader
    return None


RULES = (
    uint8_zero_point,
    quantised_type,
    no_zero_point,
    nonzero_zero_point,
    scale_not_constant,
    scale_not_positive,
    per_axis_activation,
    per_axis_weight,
    blocked_scale,
    scale_type,
    fp16_scale_opset,
    quantised_bias,
    scalar_quantised,
    dequantise_placement,
)
