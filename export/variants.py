"""Step graphs that leave something out, cut from the whole one: the same nodes, so the same numbers, less work.

A variant keeps every input, output and state of the step graph. What it does not read it does not compute.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild
from clcr_edge.errors import ExportError
from clcr_edge.export.graph import check, export_step
from clcr_edge.model.student import Student


def with_window(student: Student, window: int) -> onnx.ModelProto:
    """The step graph of the same weights over level windows of another length."""
    model = dataclasses.replace(student.config.model, window=window)
    shorter = Student(dataclasses.replace(student.config, model=model))
    shorter.load_state_dict(student.state_dict())
    return export_step(shorter.eval())


def holding_frame(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the frame encoder: vision's token repeats the last one, which the first convolution's context still holds. Where
    vision is marked absent, it is absent."""
    feature = _feature(model, "frame_project.weight")
    last = [
        helper.make_node("Slice", ["past_features", "held.start", "held.end", "held.axes"], ["held.rows"], name="held.slice"),
        helper.make_node("Squeeze", ["held.rows", "held.squeezed"], [feature], name="held.squeeze"),
    ]
    # past_features [2, rows, d]: vision first; the first convolution keeps two ticks, the newest last.
    constants = {"start": [0, 1], "end": [1, 2], "axes": [0, 1], "squeezed": [0]}
    return _replaced(
        model, feature, last, [numpy_helper.from_array(np.array(v, np.int64), f"held.{k}") for k, v in constants.items()]
    )


def without_sound(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the audio encoder: its token is zero, as it is where audio is absent. Mark audio absent when running it."""
    feature = _feature(model, "sound_project.weight")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shape = next([d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info if v.name == feature)
    return _replaced(model, feature, [], [numpy_helper.from_array(np.zeros(shape, np.float32), feature)])


def _feature(model: onnx.ModelProto, weight: str) -> str:
    """The tensor that an encoder ends in: the first ReLU after its projection."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    node = next(iter(readers.get(weight, [])), None)
    while node is not None and node.op_type != "Relu":
        after = readers.get(node.output[0], [])
        node = after[0] if len(after) == 1 else None
    if node is None:
        raise ExportError(f"found no encoder that ends in {weight}; this is a fault of clcr-edge, please report it")
    return str(node.output[0])


def _replaced(
    model: onnx.ModelProto, tensor: str, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy in which a tensor is made otherwise, and nothing is left that only its old maker read."""
    out = copy_of(model)
    made = [*nodes, *(n for n in out.graph.node if tensor not in n.output)]
    weights = [*out.graph.initializer, *constants]
    wanted = {o.name for o in out.graph.output}
    kept = []
    for node in reversed(made):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    rebuild(out.graph, reversed(kept), (w for w in weights if w.name in wanted))
    check(out)
    return out
