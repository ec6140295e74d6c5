"""Puts static Q/DQ around chosen convolutions as TensorRT wants it: symmetric signed 8 bit, zero points 0, float bias.

    source -> Q -> DQ -> Conv      one scale for the tensor; whoever else reads the source keeps the float (states among them)
    weight (int8) -> DQ -> Conv    one scale per output channel

Results are not quantised: TensorRT fuses Conv, ReLU and the next convolution's Q by itself (NVIDIA's pages on explicit
quantisation). What is not a chosen convolution stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild
from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.units import ConvSite

_CODES = 127  # -127..127: with -128 in use the range would not be symmetric


def quantise_symmetric(model: onnx.ModelProto, sites: Sequence[ConvSite], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """A copy of the model with symmetric Q/DQ at every site. ranges: of every site's source."""
    out = copy_of(model)
    graph = out.graph
    weights = {i.name: i for i in graph.initializer}
    chosen = {s.node: s for s in sites}
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    paired: set[str] = set()
    for node in graph.node:
        site = chosen.get(node.name)
        if site is None:
            nodes.append(node)
            continue
        if site.source not in paired:
            paired.add(site.source)
            nodes += _pair(site.source, ranges[site.source], added)
        weight = weights.pop(node.input[1])
        nodes.append(_weight(weight.name, numpy_helper.to_array(weight).astype(np.float32), added))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.input[1] = f"{site.source}.dq", f"{weight.name}.dq"
        nodes.append(copy)
    rebuild(graph, nodes, [*(i for i in graph.initializer if i.name in weights), *added])
    return out


def _pair(source: str, found: Range, added: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    added.append(numpy_helper.from_array(np.array(found.symmetric_scale, np.float32), f"{source}.scale"))
    added.append(numpy_helper.from_array(np.array(0, np.int8), f"{source}.zero"))
    constants = [f"{source}.scale", f"{source}.zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *constants], [f"{source}.q"], name=f"{source}.quantize"),
        helper.make_node("DequantizeLinear", [f"{source}.q", *constants], [f"{source}.dq"], name=f"{source}.dequantize"),
    ]


def _weight(name: str, weight: npt.NDArray[np.float32], added: list[onnx.TensorProto]) -> onnx.NodeProto:
    """DQ of the weight's codes, along the output channels."""
    axes = tuple(range(1, weight.ndim))
    scale = (np.maximum(np.abs(weight).max(axis=axes), 1e-8) / _CODES).astype(np.float32)
    codes = np.clip(np.round(weight / scale.reshape(-1, *(1 for _ in axes))), -_CODES, _CODES).astype(np.int8)
    values = {"q": codes, "scale": scale, "zero": np.zeros(len(scale), np.int8)}
    added += [numpy_helper.from_array(value, f"{name}.{part}") for part, value in values.items()]
    inputs = [f"{name}.{part}" for part in values]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], name=f"{name}.dequantize", axis=0)
