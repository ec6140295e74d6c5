"""The FP16 twin of a step graph: weights, and the activations between them, in 16 bit; all else stays fp32.

TensorRT's strong typing takes precision from the file, so the file carries it. In FP16: products with a weight (Conv, Gemm,
MatMul, the embedding), and the bias, ReLU, max pooling and movement between them. In fp32: inputs, outputs and states; norms,
means and softmaxes; the simplex (0.02 off in FP16 with 64 tokens); ages and masks. The products inside IntraCED's attention
have no weight and are small: a Cast around each would cost more than it saves.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# In 16 bit if all their numbers come in 16 bit. None of them sums over many, or needs more range than what it reads.
_FOLLOW = {
    *("Relu", "LeakyRelu", "Add", "MaxPool", "ReduceMax"),
    *("Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Gather", "Expand"),
}
_MOST = 65_504.0  # FP16's largest number


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp32 model in mixed FP16. Inputs and outputs keep their names and types."""
    out = copy_of(model)
    graph = out.graph
    constants = {i.name: i for i in graph.initializer}
    floats = _floats(model)
    halves, chosen = _colour(graph, constants, floats)
    outputs = {o.name for o in graph.output}

    rewritten: list[onnx.NodeProto] = []
    made: set[str] = set()

    def cast(name: str, made_name: str, kind: int) -> str:
        if made_name not in made:
            made.add(made_name)
            rewritten.append(helper.make_node("Cast", [name], [made_name], name=f"{made_name}.cast", to=kind))
        return made_name

    def half(name: str) -> str:
        if name in halves:
            return f"{name}.half" if name in outputs else name
        if name not in constants:
            return cast(name, f"{name}.half", TensorProto.FLOAT16)
        made.add(f"{name}.half")
        return f"{name}.half"

    for index, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for at, name in enumerate(copy.input):
            if index in chosen and name in floats:
                copy.input[at] = half(name)
            elif index not in chosen and name in halves and name not in outputs:
                copy.input[at] = cast(name, f"{name}.float", TensorProto.FLOAT)
        back = [name for name in copy.output if index in chosen and name in outputs]
        copy.output[:] = [f"{name}.half" if name in back else name for name in copy.output]
        rewritten.append(copy)
        for name in back:
            cast(f"{name}.half", name, TensorProto.FLOAT)
    _write(graph, rewritten, constants, made)
    return out


def _floats(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    values |= {i.name: i.data_type for i in inferred.initializer}
    return {name for name, kind in values.items() if kind == TensorProto.FLOAT}


def _colour(graph: onnx.GraphProto, constants: dict[str, TensorProto], floats: set[str]) -> tuple[set[str], set[int]]:
    """Which tensors are made in FP16, and by which nodes (their indices)."""
    halves: set[str] = set()
    chosen: set[int] = set()
    for index, node in enumerate(graph.node):
        numbers = [name for name in node.input if name in floats]
        fixed = [name for name in numbers if name in constants]
        computed = [name for name in numbers if name not in constants]
        if not numbers or any(np.abs(numpy_helper.to_array(constants[name])).max(initial=0.0) > _MOST for name in fixed):
            continue
        weighted = node.op_type in _WEIGHTED and any(len(constants[name].dims) > 1 for name in fixed)
        looked_up = node.op_type == "Gather" and node.input[0] in fixed and len(constants[node.input[0]].dims) > 1
        follows = node.op_type in _FOLLOW and bool(computed) and all(name in halves for name in computed)
        if weighted or looked_up or follows:
            chosen.add(index)
            halves.update(name for name in node.output if name in floats)
    return halves, chosen


def _write(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: dict[str, TensorProto], made: set[str]
) -> None:
    """Put the nodes in, and the constants that they read in the types that they read them in."""
    read = {name for node in nodes for name in node.input}
    kept = []
    for name, tensor in constants.items():
        if name in read:
            kept.append(tensor)
        if f"{name}.half" in made:
            kept.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.half"))
    rebuild(graph, nodes, kept)
