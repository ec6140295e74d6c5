"""A step graph with one unit's matrix products in 8 bit, for asking what that would cost: unsigned activations, signed weights.

Only convolutions are shipped in 8 bit. That the rest stays float is a claim, and this makes it one that is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clcr_edge.calibration.graph_edit import copy_of, rebuild
from clcr_edge.calibration.ranges import Range

_PRODUCTS = ("MatMul", "Gemm")


def products(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Every MatMul and Gemm node by name, with the float activations that it multiplies."""
    constants = {i.name for i in model.graph.initializer}
    return {
        n.name: list(dict.fromkeys(name for name in n.input[:2] if name not in constants))
        for n in model.graph.node
        if n.op_type in _PRODUCTS
    }


def quantise_products(model: onnx.ModelProto, nodes: Iterable[str], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """A copy of the model with Q/DQ before the named products. ranges: of every activation that they read."""
    out = copy_of(model)
    wanted = set(nodes)
    weights = {i.name: i for i in out.graph.initializer}
    rewritten: list[onnx.NodeProto] = []
    added: dict[str, onnx.TensorProto] = {}
    done: set[str] = set()

    def constants(name: str, scale: npt.NDArray[np.generic], zero: npt.NDArray[np.generic]) -> list[str]:
        for part, value in (("scale", scale), ("zero", zero)):
            added[f"{name}.{part}"] = numpy_helper.from_array(value, f"{name}.{part}")
        return [f"{name}.scale", f"{name}.zero"]

    for node in out.graph.node:
        if node.name not in wanted:
            rewritten.append(node)
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for at, name in enumerate(node.input[:2]):
            copy.input[at] = f"{name}.dq"
            if name in done:
                continue
            done.add(name)
            if name in weights:
                weight = numpy_helper.to_array(weights[name])
                axis = _channels(node, weight.ndim)
                others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
                scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-8) / 127.0
                codes = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
                flat = scale.astype(np.float32).reshape(() if axis is None else -1)
                both = constants(name, flat, np.zeros(flat.shape, np.int8))
                added[f"{name}.q"] = numpy_helper.from_array(codes, f"{name}.q")
                node_of_weight = helper.make_node("DequantizeLinear", [f"{name}.q", *both], [f"{name}.dq"])
                if axis is not None:
                    node_of_weight.attribute.append(helper.make_attribute("axis", axis))
                rewritten.append(node_of_weight)
            else:
                found = ranges[name]
                both = constants(name, np.array(found.scale, np.float32), np.array(found.zero_point, np.uint8))
                rewritten.append(helper.make_node("QuantizeLinear", [name, *both], [f"{name}.q"]))
                rewritten.append(helper.make_node("DequantizeLinear", [f"{name}.q", *both], [f"{name}.dq"]))
        rewritten.append(copy)
    rebuild(out.graph, rewritten, [*out.graph.initializer, *added.values()])
    return out


def _channels(node: onnx.NodeProto, rank: int) -> int | None:
    """The weight's axis of output channels; None (one scale for all) for a batch of products, which has no common one."""
    if node.op_type == "Gemm":
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if turned else 1
    return 1 if rank == 2 else None
