"""Puts static Q/DQ pairs around chosen convolutions of a step graph, for CPUs.

Activations unsigned 8 bit with a zero point, weights signed 8 bit per output channel, bias 32 bit: what ONNX Runtime fuses
to one integer convolution (symmetric signed activations it computes slowly; `benchmarks/modelopt_int8.py` times such a graph).
Fusion's own matrices, IntraCED, InterCAD and every state stay fp32: they are small, and every export measures what 8 bit would
do to them (`calibration/probe.py`; report.html shows it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild
from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.units import ConvSite


def quantise(model: onnx.ModelProto, sites: Sequence[ConvSite], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """A copy of the model with Q/DQ around every site. ranges: of every site's source and result."""
    out = copy_of(model)
    graph = out.graph
    weights = {i.name: i for i in graph.initializer}
    chosen = {s.node: s for s in sites}
    results = {s.result for s in sites}
    nodes: list[onnx.NodeProto] = []
    added: dict[str, TensorProto] = {}
    paired: set[str] = set()
    gone: set[str] = set()

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        added.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def pair(tensor: str) -> str:
        """Q and DQ after a tensor, once; returns the dequantised name."""
        if tensor not in paired:
            paired.add(tensor)
            r = ranges[tensor]
            scale = constant(f"{tensor}.scale", np.array(r.scale, np.float32))
            zero = constant(f"{tensor}.zero", np.array(r.zero_point, np.uint8))
            nodes.append(
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{tensor}.q"], name=f"{tensor}.quantize")
            )
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{tensor}.q", scale, zero], [f"{tensor}.dq"], name=f"{tensor}.dequantize"
                )
            )
        return f"{tensor}.dq"

    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if site := chosen.get(node.name):
            copy.input[0] = pair(site.source)
            weight_name = node.input[1]
            weight = numpy_helper.to_array(weights[weight_name])
            w_scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-8) / 127.0
            codes = np.clip(np.round(weight / w_scale[:, None, None, None]), -127, 127).astype(np.int8)
            scale = constant(f"{weight_name}.scale", w_scale.astype(np.float32))
            zero = constant(f"{weight_name}.zero", np.zeros(len(w_scale), np.int8))
            coded = constant(f"{weight_name}.q", codes)
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [coded, scale, zero], [f"{weight_name}.dq"], name=f"{weight_name}.dequantize", axis=0
                )
            )
            copy.input[1] = f"{weight_name}.dq"
            gone.add(weight_name)
            bias_name = node.input[2] if len(node.input) > 2 else ""
            if bias_name:
                b_scale = (w_scale * ranges[site.source].scale).astype(np.float32)
                bias = numpy_helper.to_array(weights[bias_name])
                b_codes = np.clip(np.round(bias.astype(np.float64) / b_scale), -(2**31), 2**31 - 1).astype(np.int32)
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear",
                        [
                            constant(f"{bias_name}.q", b_codes),
                            constant(f"{bias_name}.scale", b_scale),
                            constant(f"{bias_name}.zero", np.zeros(len(b_scale), np.int32)),
                        ],
                        [f"{bias_name}.dq"],
                        name=f"{bias_name}.dequantize",
                        axis=0,
                    )
                )
                copy.input[2] = f"{bias_name}.dq"
                gone.add(bias_name)
        else:
            for index, name in enumerate(copy.input):
                if name in paired:
                    copy.input[index] = f"{name}.dq"
        nodes.append(copy)
        for name in copy.output:
            if name in results:  # quantise the result where it is made, so that convolution and ReLU fuse into one
                pair(name)
    rebuild(graph, nodes, [*(i for i in graph.initializer if i.name not in gone), *added.values()])
    return out
