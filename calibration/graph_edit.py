"""What every rewriting of an ONNX graph does first and last."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to change."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out


def rebuild(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto]) -> None:
    """Put other nodes and initialisers into a graph, in place. Shapes told of its old tensors go: the new ones may differ."""
    nodes, constants = list(nodes), list(constants)  # they may read what is deleted here
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
