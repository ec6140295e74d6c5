"""The step as an ONNX model: exported, stripped of everything that is not the computation, and checked before use."""

from __future__ import annotations

import logging
import warnings
from collections import Counter

import onnx
import torch

from clcr_edge.errors import ExportError
from clcr_edge.export.step import INPUTS, OUTPUTS, STATES, StepGraph, example_inputs, initial_state
from clcr_edge.model.student import Student

OPSET = 20  # 19 or 20: FP16 scales need 19, and TensorRT 10.0's parser documents up to 20
_BANNED = {"If", "Loop", "Scan", "CumSum", "NonZero", "Unique", "DynamicQuantizeLinear", "SequenceConstruct"}


def export_step(student: Student) -> onnx.ModelProto:
    """Student -> checked ONNX step graph with named inputs, outputs and states (`next_` before a new state)."""
    graph = StepGraph(student).eval()
    arguments = (*example_inputs(student.config), *initial_state(student.config))
    names = [*OUTPUTS, *(f"next_{name}" for name in STATES)]
    noisy = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # four lines about torchvision, which this project does not use
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch's own exporter
            program = torch.onnx.export(
                graph,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=[*INPUTS, *STATES],
                output_names=names,
                external_data=False,
                verbose=False,
            )
    finally:
        noisy.setLevel(level)
    assert program is not None
    model = program.model_proto
    clean(model)
    without_integer_clip(model)
    check(model)
    return model


def without_integer_clip(model: onnx.ModelProto) -> None:
    """Clip of whole numbers -> Max and Min, which say the same: TensorRT documents Clip for floats only."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input)}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Clip" or types.get(node.input[0]) not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
            nodes.append(node)
            continue
        bounds = [(op, name) for op, name in zip(("Max", "Min"), node.input[1:], strict=False) if name]
        value = node.input[0]
        for index, (op, bound) in enumerate(bounds):
            last = index == len(bounds) - 1
            made = node.output[0] if last else f"{node.output[0]}.{op}"
            nodes.append(onnx.helper.make_node(op, [value, bound], [made], name=node.name if last else f"{node.name}.{op}"))
            value = made
        if not bounds:
            nodes.append(onnx.helper.make_node("Identity", [value], [node.output[0]], name=node.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def clean(model: onnx.ModelProto) -> None:
    """Drop source paths and stack traces that the exporter writes into the metadata, and name the producer."""
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
        if not isinstance(holder, onnx.ModelProto):
            holder.doc_string = ""
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
        initializer.doc_string = ""
    del model.functions[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "clcr-edge", ""


def check(model: onnx.ModelProto) -> None:
    """ONNX's own full check, strict shape inference, and what a static step may not hold. Raises `ExportError`."""
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ExportError(f"the graph fails ONNX's checks: {str(e).splitlines()[0]}") from None
    opset = {o.domain: o.version for o in model.opset_import}.get("", 0)
    if opset not in (19, 20):
        raise ExportError(f"the graph has opset {opset}; it must be 19 or 20")
    banned = Counter(n.op_type for n in model.graph.node if n.op_type in _BANNED)
    if banned:
        raise ExportError(f"the graph holds {dict(banned)}, which a static step may not")
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.DOUBLE:
            raise ExportError(f"{value.name} is a 64-bit float")
        if any(not d.HasField("dim_value") for d in tensor.shape.dim):
            raise ExportError(f"{value.name} has a dynamic shape")
    doubles = [i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.DOUBLE]
    if doubles:
        raise ExportError(f"constant {doubles[0]} is a 64-bit float")
