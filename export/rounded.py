"""An FP16 graph as an fp32 one that rounds where the FP16 graph does: what its accuracy is measured on.

ONNX Runtime on a CPU has few FP16 kernels. It computes such nodes in fp32 and leaves out the casts in between, so that the
graph itself would look better there than it is: 1.2345678 * 1000 came out as 1234.5677, where FP16 has 1234. A pair of casts
in an fp32 graph it does keep.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild

# They give one of the numbers that they read, which is rounded already.
_EXACT = {
    *("Relu", "MaxPool", "ReduceMax", "Where", "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
    *("Split", "Concat", "Gather", "Expand"),
}


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with FP16 tensors in which all of them are fp32 and hold FP16's values."""
    out = copy_of(model)
    graph = out.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type == "Cast" and node.input[0] in halves:  # from FP16, to whatever it was
            for attribute in copy.attribute:
                attribute.i = TensorProto.FLOAT if attribute.i == TensorProto.FLOAT16 else attribute.i
        rounds = [name for name in node.output if name in halves] if node.op_type not in _EXACT else []
        if node.op_type == "Cast" and rounds:
            copy.output[0] = f"{rounds[0]}.rounded"
            nodes += [copy, _cast(f"{rounds[0]}.rounded", rounds[0], TensorProto.FLOAT)]
            continue
        copy.output[:] = [f"{name}.exact" if name in rounds else name for name in copy.output]
        nodes.append(copy)
        for name in rounds:
            nodes.append(_cast(f"{name}.exact", f"{name}.rounded", TensorProto.FLOAT16))
            nodes.append(_cast(f"{name}.rounded", name, TensorProto.FLOAT))
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
    rebuild(graph, nodes, graph.initializer)
    return out


def _cast(name: str, made: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [made], name=f"{made}.round", to=kind)
