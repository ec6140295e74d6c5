"""Rules on operators: what TensorRT's ONNX parser does not know, knows for other types only, or turns into something slow.

The table is that of onnx/onnx-tensorrt, docs/operators.md (10.15); the remedies are for a step graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from clcr_edge.export.rules.finding import Hit, rule
from clcr_edge.export.rules.view import MOVEMENT, GraphView, attribute, equation, type_name

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBERS | {TensorProto.BOOL}
_OPERATORS = {
    frozenset(_FLOATS): """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos
        Cosh Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM LayerNormalization
        LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization Mish PRelu RNN
        Reciprocal Resize Round Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
        Upsample""",
    frozenset(_NUMBERS): """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean
        Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Shrink Sign SpaceToDepth
        Sub Sum TopK""",
    frozenset(_ANY): """
        Concat ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Reshape
        ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where""",
    frozenset({TensorProto.BOOL}): "And Not Or Xor",
    frozenset(): "Cast CastLike Constant QuantizeLinear DequantizeLinear",  # of any type, or with rules of their own
}
_TYPES = {name: kinds for kinds, names in _OPERATORS.items() for name in names.split()}
_CONTROL = ("If", "Loop", "Scan")
_SHAPED_BY_DATA = ("NonZero", "Compress", "NonMaxSuppression")
_OWN_RULES = {*_CONTROL, *_SHAPED_BY_DATA, "CumSum", "Unique", "DynamicQuantizeLinear"}
_MOST_TOP = 3840
_HANDED_ON = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze")


@rule("control-flow", "compute every branch at every tick and choose with Where; unroll a fixed number of steps")
def control_flow(view: GraphView) -> Iterator[Hit]:
    """If, Loop and Scan defeat CUDA graphs, and their shapes are restricted."""
    for node in view.of_type(*_CONTROL):
        yield Hit(node, f"{node.op_type} is control flow: an engine with it cannot be captured as a CUDA graph")


@rule("data-dependent-shape", "keep the full tensor and mask it with Where")
def data_dependent_shape(view: GraphView) -> Iterator[Hit]:
    """The size of the result depends on the values."""
    for node in view.of_type(*_SHAPED_BY_DATA):
        yield Hit(node, f"{node.op_type} makes a tensor whose size depends on its values; the step graph must be static")


@rule("cumsum", "MatMul with a triangular matrix of ones")
def cumsum(view: GraphView) -> Iterator[Hit]:
    """Floats only, and a loop inside before TensorRT 10.8."""
    for node in view.of_type("CumSum"):
        kind = view.types.get(node.input[0])
        wrong = "" if kind is None or kind in _FLOATS else f" of {type_name(kind)}, which no version takes,"
        yield Hit(node, f"CumSum{wrong} becomes a loop before TensorRT 10.8 (JetPack 6 has 10.3)")


@rule("unique", "do it on the host, or compare all pairs with Equal and mask")
def unique(view: GraphView) -> Iterator[Hit]:
    """Not supported at all; ONNX's checker and ONNX Runtime take it."""
    for node in view.of_type("Unique"):
        yield Hit(node, "Unique is not supported by TensorRT, and its result has no fixed size")


@rule("dynamic-quantisation", "calibrate, and use QuantizeLinear with a constant scale: clcr-edge export --target tensorrt")
def dynamic_quantisation(view: GraphView) -> Iterator[Hit]:
    """Scales measured at run time."""
    for node in view.of_type("DynamicQuantizeLinear"):
        yield Hit(node, "DynamicQuantizeLinear is not supported by TensorRT: it wants scales that are known when building")


@rule("unsupported-operator", "write it with operators that TensorRT's parser knows (onnx-tensorrt, docs/operators.md)")
def unsupported_operator(view: GraphView) -> Iterator[Hit]:
    """Not in the parser's table, or from another domain."""
    for node in view.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield Hit(node, f"{node.domain}.{node.op_type} is no standard operator: TensorRT would want a plugin for it")
        elif node.op_type not in _TYPES and node.op_type not in _OWN_RULES:
            yield Hit(node, f"{node.op_type} is not supported by TensorRT's ONNX parser")


@rule("operator-type", "cast to float before it (or Max and Min in place of an integer Clip)")
def operator_type(view: GraphView) -> Iterator[Hit]:
    """A known operator on a type that TensorRT does not run it on."""
    for node in view.nodes:
        allowed = _TYPES.get(node.op_type)
        if not allowed or node.domain not in ("", "ai.onnx"):
            continue
        index = 1 if node.op_type == "Where" else 0
        kind = view.types.get(node.input[index]) if len(node.input) > index else None
        # 64-bit floats, 8-bit and odd types have rules of their own.
        if kind in _ANY and kind not in allowed:
            names = ", ".join(sorted(type_name(k) for k in allowed))
            yield Hit(node, f"{node.op_type} on {type_name(kind)}; TensorRT runs it on {names} only")
        elif kind == TensorProto.INT8 and node.op_type not in MOVEMENT:
            yield Hit(node, f"{node.op_type} reads 8-bit codes; TensorRT wants DequantizeLinear in between")


@rule("topk", f"a constant k below {_MOST_TOP} and sorted = 1; for a ranking use comparisons against all breakpoints")
def topk(view: GraphView) -> Iterator[Hit]:
    """The header allows 3840, operators.md wants less: the stricter one holds. What cannot be held to it is refused as well."""
    for node in view.of_type("TopK"):
        k = _k(view, node)
        if k is None:
            yield Hit(node, f"TopK with a computed k: that it stays below {_MOST_TOP} cannot be told, nor its shape be static")
        elif k >= _MOST_TOP:
            yield Hit(node, f"TopK with k = {k}; TensorRT takes less than {_MOST_TOP}")
        if not attribute(node, "sorted", 1):
            yield Hit(node, "TopK with sorted = 0, which TensorRT refuses")


def _k(view: GraphView, node: onnx.NodeProto) -> int | None:
    if len(node.input) < 2:  # an attribute before opset 10
        return attribute(node, "k", 0)
    name, seen = node.input[1], set[str]()
    # Exporters hand k through such nodes; what else computes it is not followed.
    while name not in seen and (made := view.producer.get(name)) is not None and made.op_type in _HANDED_ON:
        seen.add(name)
        name = made.input[0]
    given = view.constant(name)
    return None if given is None or not given.size else int(given.reshape(-1)[0])


@rule("scatter", "a ring buffer is Slice and Concat")
def scatter(view: GraphView) -> Iterator[Hit]:
    """ScatterElements runs as a plugin; ScatterND knows no reduction."""
    for node in view.of_type("ScatterElements", "Scatter"):
        yield Hit(node, f"{node.op_type} runs as a plugin in TensorRT, outside of every fusion")
    for node in view.of_type("ScatterND"):
        if any(a.name == "reduction" and a.s not in (b"", b"none") for a in node.attribute):
            yield Hit(node, "ScatterND with a reduction, which TensorRT refuses")


@rule("einsum", "MatMul with Transpose and Reshape around it")
def einsum(view: GraphView) -> Iterator[Hit]:
    """No ellipsis, diagonal or broadcast before TensorRT 10.12."""
    for node in view.of_type("Einsum"):
        text = equation(node)
        terms = text.split("->")[0].split(",")
        sizes: dict[str, set[int | str]] = {}
        for term, name in zip(terms, node.input, strict=False):
            for letter, size in zip(term, view.shape(name) or [], strict=False):
                sizes.setdefault(letter, set()).add(size)
        if "..." in text:
            yield Hit(node, f"Einsum {text!r} has an ellipsis, which TensorRT before 10.12 refuses")
        elif any(len(set(term)) < len(term) for term in terms):
            yield Hit(node, f"Einsum {text!r} takes a diagonal, which TensorRT before 10.12 refuses")
        elif any(len(found) > 1 for found in sizes.values()):
            yield Hit(node, f"Einsum {text!r} broadcasts, which TensorRT before 10.12 refuses")


@rule("extra-outputs", "compute what is read there with operators of its own")
def extra_outputs(view: GraphView) -> Iterator[Hit]:
    """Only the first output of a norm and of a pool is supported."""
    for node in view.of_type("LayerNormalization", "MaxPool", "Dropout", "BatchNormalization"):
        if any(node.output[1:]):
            yield Hit(node, f"{node.op_type} gives {len(node.output)} outputs; TensorRT supports the first only")


@rule("recurrent-attributes", "layout = 0 and input_forget = 0; transpose around the LSTM")
def recurrent_attributes(view: GraphView) -> Iterator[Hit]:
    """LSTM forms that the parser refuses."""
    for node in view.of_type("LSTM", "GRU", "RNN"):
        for name in ("layout", "input_forget"):
            if attribute(node, name, 0):
                yield Hit(node, f"{node.op_type} with {name} = {attribute(node, name, 0)}, which TensorRT refuses")


RULES = (
    control_flow,
    data_dependent_shape,
    cumsum,
    unique,
    dynamic_quantisation,
    unsupported_operator,
    operator_type,
    topk,
    scatter,
    einsum,
    extra_outputs,
    recurrent_attributes,
)
