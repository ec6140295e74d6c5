"""Rules on shapes: everything static, convolutions in 2-D, axes constant."""

from __future__ import annotations

from collections.abc import Iterator

from clcr_edge.export.rules.finding import Hit, rule
from clcr_edge.export.rules.view import GraphView

# operator -> the inputs that must be known when building
_BUILD_TIME = {
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
            "Squeeze",
            "Unsqueeze",
            "OneHot",
            "CumSum",
        ),
        1,
    ),
    "Slice": 3,
}


@rule("dynamic-shape", "fix every dimension: batch 1, one tick")
def dynamic_shape(view: GraphView) -> Iterator[Hit]:
    """Needs a profile, and neither a CUDA graph nor DLA takes it. Told once per input and output, then where it begins."""
    bad = {name for name in view.values if any(isinstance(d, str) for d in view.shape(name) or [])}
    bad |= {o.name for o in (*view.inputs, *view.outputs) if view.shape(o.name) is None}
    for value in (*view.inputs, *view.outputs):
        if value.name in bad:
            shape = view.shape(value.name)
            shown = "no shape" if shape is None else f"shape [{', '.join(map(str, shape))}]"
            yield Hit(value.name, f"{value.name} has {shown}; a static graph is what a CUDA graph can hold")
    outputs = {o.name for o in view.outputs}
    for node in view.nodes:
        made = [o for o in node.output if o in bad and o not in outputs]
        if made and not any(i in bad for i in node.input):
            yield Hit(node, f"{node.op_type} makes {made[0]} of shape [{', '.join(map(str, view.shape(made[0]) or []))}]")


@rule("convolution-rank", "write it in 2-D: input [N, C, 1, T], kernel 1 x k")
def convolution_rank(view: GraphView) -> Iterator[Hit]:
    """With Q/DQ, the parser puts a shuffle between a 1-D weight and its convolution."""
    for node in view.of_type("Conv", "ConvTranspose"):
        shape = view.shape(node.input[1]) if len(node.input) > 1 else None
        if shape is not None and len(shape) == 3:
            yield Hit(node, f"{node.op_type} is 1-D (weight {shape}): TensorRT reshapes around it, which splits Q/DQ")


@rule("computed-axes", "write the axes as an initializer")
def computed_axes(view: GraphView) -> Iterator[Hit]:
    """Axes and the like that are not constant."""
    for node in view.nodes:
        index = _BUILD_TIME.get(node.op_type)
        if index is None or len(node.input) <= index or not node.input[index]:
            continue
        if view.root(node.input[index]) is None:
            what = "depth" if node.op_type == "OneHot" else "axes"
            yield Hit(node, f"{node.op_type} with computed {what}; TensorRT wants them constant")


RULES = (dynamic_shape, convolution_rank, computed_axes)
