"""The ONNX graph as the writer of C needs it: nodes, static shapes, constants, and who reads what."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.errors import EngineError, MissingPartError
from clcr_edge.export.native.values import Array, is_known

_MOST = 1 << 26  # elements of a tensor: 256 MB of floats
OPSETS = (18, 21)  # the oldest whose operators mean what is written here, and the newest that was looked at
ELEMENTS = {1: "float32", 6: "int32", 7: "int64", 9: "bool"}
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. inputs: names, "" where one is left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def output(self) -> str:
        """The name of its only output, or of its first."""
        return self.outputs[0]


@dataclass(frozen=True)
class Graph:
    """A static graph. kinds: shape and element type of every tensor, by name."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Array]
    kinds: dict[str, tuple[Shape, str]]
    readers: dict[str, tuple[Node, ...]]

    def shape(self, name: str) -> Shape:
        """The shape of a tensor."""
        return self.kinds[name][0]

    def numbers(self, name: str) -> list[int]:
        """A constant of whole numbers, as a list. Raises `EngineError` if it is none."""
        if name not in self.constants:
            raise EngineError(f"the native engine needs {name!r} to be constant; use --engine onnxruntime")
        return [int(n) for n in np.atleast_1d(self.constants[name])]


def read_graph(path: Path) -> Graph:
    """Read a step graph. Raises `MissingPartError` without the package onnx, `EngineError` for what cannot be written as C."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingPartError(
            "building the native engine reads the graph with the package onnx, which is not installed: "
            "pip install 'clcr-edge[native]'"
        ) from None
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True, data_prop=True)
        opsets = {o.domain: o.version for o in model.opset_import}
    except Exception as e:  # protobuf's and onnx's errors share no public root
        raise EngineError(f"{path}: onnx cannot read it ({str(e).splitlines()[0][:200]}); export again") from None
    if not OPSETS[0] <= opsets.get("", 0) <= OPSETS[1] or any(n.domain for n in model.graph.node):
        raise EngineError(f"{path}: the native engine reads plain ONNX of opset {OPSETS[0]} to {OPSETS[1]}; export again")
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    kinds: dict[str, tuple[Shape, str]] = {n: (a.shape, str(a.dtype)) for n, a in constants.items()}
    unknown = [str(a.dtype) for a in constants.values() if not is_known(str(a.dtype)) or not a.size]
    if unknown:
        raise EngineError(f"{path}: a constant of {unknown[0]}, or an empty one, which the native engine does not know")
    for about in (*graph.value_info, *graph.input, *graph.output):
        tensor = about.type.tensor_type
        if any(not d.HasField("dim_value") for d in tensor.shape.dim) or tensor.elem_type not in ELEMENTS:
            raise EngineError(f"{path}: {about.name!r} has no static shape or a type that the native engine does not know")
        shape = tuple(d.dim_value for d in tensor.shape.dim)
        if min(shape, default=1) < 1 or prod(shape) > _MOST:
            raise EngineError(f"{path}: {about.name!r} is {list(shape)}; the native engine takes 1 to {_MOST} elements")
        kinds[about.name] = (shape, ELEMENTS[tensor.elem_type])
    nodes = _needed(
        [
            Node(n.op_type, tuple(n.input), tuple(n.output), {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute})
            for n in graph.node
        ],
        [o.name for o in graph.output],
    )
    unmade = {o.name for o in graph.output} - {name for node in nodes for name in node.outputs}
    if unmade:
        raise EngineError(f"{path}: nothing makes the output {min(unmade)!r}; export again")
    unknown = [o for n in nodes for o in n.outputs if o and o not in kinds]
    if unknown:
        raise EngineError(f"{path}: the shape of {unknown[0]!r} is not known before it runs; use --engine onnxruntime")
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return Graph(
        nodes, tuple(i.name for i in graph.input), tuple(o.name for o in graph.output), constants, kinds,
        {name: tuple(found) for name, found in readers.items()},
    )  # fmt: skip


def _needed(nodes: list[Node], outputs: list[str]) -> tuple[Node, ...]:
    """The nodes that an output needs: what nothing reads is not written."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(kept))
