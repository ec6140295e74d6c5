"""Which tensors share a buffer: views of one another, and parts that are written at once where they will be read.

A `Concat` copies nothing whose maker could write into its part; a convolution's input is made inside a border of zeros.
"""

from __future__ import annotations

import numpy as np

from clcr_edge.errors import EngineError
from clcr_edge.export.native.graph import Graph, Node
from clcr_edge.export.native.values import ALIGN, Array, Buffer, Value, new_buffer, reshaped

VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Slice", "Split", "Transpose", "Expand", "Identity", "Flatten"})
_RESHAPES = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"})


class Layout:
    """Gives every tensor its place."""

    def __init__(self, graph: Graph, given: dict[str, Value]) -> None:
        """given: where the graph's inputs and outputs lie."""
        self._graph = graph
        self._values = dict(given)
        self.buffers: list[Buffer] = []
        self.weights: list[Array] = []  # in the order of their buffers' offsets
        self.weight_bytes = 0
        self._wanted = {n: given[n] for n in graph.outputs}

    def value(self, name: str) -> Value:
        """A tensor that is read: an input, a constant, or made before."""
        if name in self._graph.constants and name not in self._values:
            self._values[name] = self.constant(self._graph.constants[name])
        if name not in self._values:
            raise EngineError(f"the native engine meets {name!r} before it is made; use --engine onnxruntime")
        return self._values[name]

    def constant(self, array: Array) -> Value:
        """A constant: one number is written into the code, more lie in the weights."""
        memory = np.ascontiguousarray(array).reshape(array.shape)
        return Value(Buffer("", "literal", memory), memory, memory) if memory.size == 1 else self.stored(memory)

    def addressed(self, value: Value) -> Value:
        """The tensor where an address is needed: a number in the code has none."""
        return self.stored(value.view) if value.buffer.kind == "literal" else value

    def stored(self, array: Array) -> Value:
        """A constant in the weights."""
        memory = np.ascontiguousarray(array).reshape(array.shape)
        buffer = Buffer(f"w{len(self.weights)}", "weights", memory)
        buffer.offset = self.weight_bytes
        self.weights.append(memory)
        self.weight_bytes += -(-memory.nbytes // ALIGN) * ALIGN
        self.buffers.append(buffer)
        return Value(buffer, memory, memory)

    def placed(self, name: str) -> Value | None:
        """Where a tensor was given a place before it is made, by what reads it; None where nothing has asked."""
        return None if name in self._wanted else self._values.get(name)

    def alias(self, name: str, value: Value) -> None:
        """A tensor is a view of another."""
        self._values[name] = value

    def scratch(self, shape: tuple[int, ...], dtype: str, kind: str = "scratch") -> Value:
        """Memory of its own."""
        value = new_buffer(f"t{len(self.buffers)}", kind, shape, dtype)
        self.buffers.append(value.buffer)
        return value

    def place(self, name: str, channels_last: bool = False) -> Value:
        """Where a tensor is to be written. channels_last: `[N, C, H, W]` in memory of its own lies as N, H, W, C."""
        if name not in self._values:
            found = self._home(name)
            if found is None:
                shape, dtype = self._graph.kinds[name]
                if channels_last and len(shape) == 4:
                    n, c, h, w = shape
                    own = self.scratch((n, h, w, c), dtype)
                    found = own.seen_as(own.view.transpose(0, 3, 1, 2))
                else:
                    found = self.scratch(shape, dtype)
            self._values[name] = found
        return self._values[name]

    def _home(self, name: str) -> Value | None:
        """Where its readers would like it to be; None: anywhere."""
        shape, dtype = self._graph.kinds[name]
        if name in self._wanted:
            return self._wanted[name]
        for reader in self._graph.readers.get(name, ()):
            if reader.op == "Concat" and reader.inputs.count(name) == 1:
                whole = self.place(reader.output)
                return whole.seen_as(whole.view[concat_part(self._graph, reader, reader.inputs.index(name))])
            if reader.op in _RESHAPES and reader.inputs[0] == name:
                there = self._values.get(reader.output) or self._home(reader.output)
                if there is not None:
                    view = reshaped(there.view, shape)
                    if view is not None:
                        self._values[reader.output] = there
                        return there.seen_as(view)
            if reader.op == "Conv" and reader.inputs[0] == name and dtype == "float32" and len(shape) == 4:
                return self.bordered(reader)
        return None

    def bordered(self, conv: Node) -> Value:
        """The input of a convolution, channels last, inside the border that its padding asks for."""
        n, c, h, w = self._graph.shape(conv.inputs[0])
        top, left, bottom, right = _pads(conv)
        whole = self.scratch((n, h + top + bottom, w + left + right, c), "float32", "bordered")
        inside = whole.view[:, top : top + h, left : left + w]
        return whole.seen_as(inside.transpose(0, 3, 1, 2))

    def is_bordered_for(self, conv: Node, value: Value) -> bool:
        """Whether a tensor lies as `bordered` would lay it for this convolution: other borders may be another's."""
        if value.buffer.kind != "bordered":
            return False
        n, c, h, w = self._graph.shape(conv.inputs[0])
        top, left, bottom, right = _pads(conv)
        whole = (n, h + top + bottom, w + left + right, c)
        row, pixel = whole[2] * c, c
        return (
            value.buffer.memory.shape == whole
            and value.shape == (n, c, h, w)
            and value.offset == top * row + left * pixel
            and value.strides == (whole[1] * row, 1, row, pixel)
        )

    def view_of(self, node: Node) -> list[Value | None]:
        """The outputs of a node that moves nothing, as views of its input; None: a copy is needed."""
        source = self.value(node.inputs[0])
        graph, shape = self._graph, self._graph.shape(node.output)
        made: list[Array | None]
        if node.op in _RESHAPES:
            made = [reshaped(source.view, shape)]
        elif node.op == "Transpose":
            made = [source.view.transpose(node.attributes["perm"])]
        elif node.op == "Expand":
            made = [np.broadcast_to(source.view, shape)]
        elif node.op == "Split":
            axis = node.attributes.get("axis", 0)
            sizes = [graph.shape(o)[axis] for o in node.outputs]
            ends = np.cumsum(sizes)
            made = [
                source.view[(slice(None),) * (axis % source.view.ndim) + (slice(e - s, e),)]
                for s, e in zip(sizes, ends, strict=True)
            ]
        else:
            made = [source.view[_slices(graph, node)]]
        return [None if m is None else self._again(source, m, node) for m in made]

    def _again(self, source: Value, view: Array, node: Node) -> Value:
        constant = None
        if source.constant is not None and view.size == 1 and source.view.size != 1:
            constant = np.array(view)  # one number of a constant: written into the code
        return source.seen_as(view, constant)


def _pads(conv: Node) -> tuple[int, int, int, int]:
    top, left, bottom, right = conv.attributes.get("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0:
        raise EngineError("the native engine knows no negative padding; use --engine onnxruntime")
    return top, left, bottom, right


def concat_part(graph: Graph, node: Node, index: int) -> tuple[slice, ...]:
    """Which part of a Concat's output its input `index` is."""
    rank = len(graph.shape(node.output))
    axis = node.attributes["axis"] % rank
    first = sum(graph.shape(n)[axis] for n in node.inputs[:index])
    return (*(slice(None),) * axis, slice(first, first + graph.shape(node.inputs[index])[axis]))


def _slices(graph: Graph, node: Node) -> tuple[slice, ...]:
    starts, ends = graph.numbers(node.inputs[1]), graph.numbers(node.inputs[2])
    rank = len(graph.shape(node.inputs[0]))
    named = len(node.inputs) > 3 and node.inputs[3]
    axes = graph.numbers(node.inputs[3]) if named else list(range(len(starts)))
    steps = graph.numbers(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else [1] * len(starts)
    found = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise EngineError("the native engine slices forwards only; use --engine onnxruntime")
        found[axis] = slice(start, end, step)
    return tuple(found)


def same_place(a: Value, b: Value) -> bool:
    """Whether two tensors are the same memory, seen the same way."""
    return a.buffer is b.buffer and a.offset == b.offset and a.shape == b.shape and a.strides == b.strides
