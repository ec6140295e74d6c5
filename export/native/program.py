"""The whole C file: the nodes in the graph's order, their scratch memory, and one function that is a tick."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from clcr_edge.errors import EngineError
from clcr_edge.export.native import loops, vectors
from clcr_edge.export.native.graph import Graph, Node
from clcr_edge.export.native.layout import VIEWS, Layout, concat_part, same_place
from clcr_edge.export.native.loops import ANY_NUMBERS, ELEMENTWISE, INPUTS, REDUCTIONS, Expression, elementwise
from clcr_edge.export.native.products import Target, Window, convolution, matrix_product, packed_kernels
from clcr_edge.export.native.values import ALIGN, Value, new_buffer, reshaped

_MOST_C = 4_000_000  # characters: the step that ships has a hundred thousand
_MOST_PRODUCTS = 1024  # of one batch: each is a call of its own
_LARGEST_PICTURE = 4096  # rows, columns or channels of a convolution
_ARGUMENTS = "const char *in, const char *state, char *out, char *next, const char *weights, char *scratch"


@dataclass(frozen=True)
class Program:
    """A graph as C. source: the file, with one function `clcr_step`. weights: its constants, as they lie in memory.

    scratch: bytes it needs beside; zeroed before the first tick, and for one tick at a time.
    """

    source: str
    weights: bytes
    scratch: int


def write_program(graph: Graph, places: dict[str, tuple[str, int]], target: Target) -> Program:
    """Write a graph as C.

    places: where its inputs and outputs lie: block (`in`, `state`, `out` or `next`) and offset in bytes, by name.
    Raises `EngineError` for an operator that it does not know.
    """
    return _Writer(graph, places, target).program()


class _Writer:
    def __init__(self, graph: Graph, places: dict[str, tuple[str, int]], target: Target) -> None:
        self._graph, self._target = graph, target
        self._given: dict[str, Value] = {}
        self._opened: list[str] = []
        for name in (*graph.inputs, *graph.outputs):
            block, offset = places[name]
            value = new_buffer(f"p{len(self._given)}", "given", *graph.kinds[name])
            constant = "const " if name in graph.inputs else ""
            pointer = f"{constant}{value.buffer.ctype} *{value.buffer.pointer}"
            self._opened.append(f"{pointer} = (void *)({block} + {offset});")
            self._given[name] = value
        self._layout = Layout(graph, self._given)
        self._convolved = {n.output for n in graph.nodes if n.op == "Conv"}
        self._expressions: dict[str, Expression] = {}
        self._functions: dict[str, str] = {}
        self._body: list[tuple[str, str]] = []

    # -- the file ------------------------------------------------------------------------------------------------------

    def program(self) -> Program:
        for node in self._graph.nodes:
            self._fuse_or_write(node)
        for name in self._graph.outputs:
            self._deliver(name)
        scratch = self._plan()
        weights = bytearray()
        for array in self._layout.weights:
            weights += array.tobytes() + bytes(-array.nbytes % ALIGN)
        for buffer in self._layout.buffers:
            block, constant = ("weights", "const ") if buffer.kind == "weights" else ("scratch", "")
            self._opened.append(f"{constant}{buffer.ctype} *{buffer.pointer} = (void *)({block} + {buffer.offset});")
        if sum(len(text) for _, text in self._body) > _MOST_C:
            raise EngineError("the graph is too large for the native engine; use --engine onnxruntime")
        source = "\n".join(
            [
                "#include <math.h>\n#include <stdint.h>",
                vectors.C + loops.PRELUDE,
                *self._functions.values(),
                f"int clcr_step({_ARGUMENTS}) {{",
                *self._opened,
                *(f"{{ /* {label} */\n{text}\n}}" for label, text in self._body),
                "return 0;\n}\n",
            ]
        )
        return Program(source, bytes(weights), scratch)

    def _plan(self) -> int:
        """Give scratch buffers their offsets: what is no longer read makes room. Returns the bytes needed."""
        for step, (_, text) in enumerate(self._body):
            used = set(_names(text))
            for buffer in self._layout.buffers:
                if buffer.kind == "scratch" and buffer.pointer in used:
                    buffer.first = step if buffer.first < 0 else buffer.first
                    buffer.last = step
        top = 0
        for buffer in self._layout.buffers:
            if buffer.kind == "bordered":
                buffer.offset, top = top, top + -(-buffer.memory.nbytes // ALIGN) * ALIGN
        placed: list[tuple[int, int, int, int]] = []  # first, last, offset, end
        lives = [(b.first, b.last, b) for b in self._layout.buffers if b.kind == "scratch"]
        most = top
        for first, last, buffer in sorted(lives, key=lambda x: (x[0], -x[2].memory.nbytes)):
            size = -(-max(buffer.memory.nbytes, 1) // ALIGN) * ALIGN
            offset = top
            for _, _, start, end in sorted((p for p in placed if p[0] <= last and first <= p[1]), key=lambda p: p[2]):
                if offset + size <= start:
                    break
                offset = max(offset, end)
            placed.append((first, last, offset, offset + size))
            buffer.offset = offset
            most = max(most, offset + size)
        return most

    def _deliver(self, name: str) -> None:
        """An output that is a view of something else is copied to where the caller wants it."""
        wanted, made = self._given[name], self._layout.value(name)
        if not same_place(wanted, made):
            self._write("output", loops.copy(wanted, made))

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _write(self, label: str, text: str) -> None:
        self._body.append((label, text))

    def _read(self, name: str) -> Expression | Value:
        return self._expressions.get(name) or self._layout.value(name)

    def _expression(self, name: str) -> Expression:
        found = self._read(name)
        return found if isinstance(found, Expression) else Expression("{0}", (found,))

    def _fuse_or_write(self, node: Node) -> None:
        if self._is_done_by_convolution(node):
            return
        if node.op in ELEMENTWISE:
            to = self._graph.kinds[node.output][1]
            self._check_elementwise(node)
            parts = [self._read(n) if n else None for n in node.inputs]
            made = elementwise(node.op, parts, to)
            if self._is_read_in_place(node):
                self._expressions[node.output] = made
            else:
                self._write(node.op, loops.assign(self._layout.place(node.output), made))
        elif node.op in VIEWS:
            self._view(node)
        elif node.op in REDUCTIONS:
            self._reduce(node)
        else:
            writers = {
                "Softmax": self._softmax, "LayerNormalization": self._layer_normalization, "Concat": self._concat,
                "Gather": self._gather, "Gemm": self._gemm, "MatMul": self._matmul, "Conv": self._conv,
            }  # fmt: skip
            if node.op not in writers:
                raise EngineError(f"the native engine does not know the operator {node.op!r}; use --engine onnxruntime")
            if node.op not in ("Concat", "Gather"):
                self._floats(node)
            writers[node.op](node)

    def _floats(self, node: Node) -> None:
        """Refuse whole numbers where only float32 is written."""
        if any(self._graph.kinds[n][1] != "float32" for n in (*node.inputs, *node.outputs) if n):
            raise EngineError(f"the native engine knows {node.op} of float32 only; use --engine onnxruntime")

    def _check_elementwise(self, node: Node) -> None:
        given = len(node.inputs)
        if not (1 <= given <= 3 if node.op == "Clip" else given == INPUTS[node.op]):
            raise EngineError(f"the native engine knows {node.op} of another number of inputs than {given}")
        if node.op not in ANY_NUMBERS:
            self._floats(node)

    def _is_read_in_place(self, node: Node) -> bool:
        """Whether its only reader can compute it, once for each element."""
        readers = self._graph.readers.get(node.output, ())
        if len(readers) != 1 or node.output in self._graph.outputs:
            return False
        reader, shape = readers[0], self._graph.shape(node.output)
        if reader.inputs.count(node.output) != 1:
            return False
        if reader.op in ELEMENTWISE:
            return self._graph.shape(reader.output) == shape
        return (reader.op in REDUCTIONS or reader.op in ("Softmax", "LayerNormalization")) and reader.inputs[0] == node.output

    def _is_done_by_convolution(self, node: Node) -> bool:
        source = node.inputs[0] if node.op == "Relu" else ""
        return source in self._convolved and self._graph.readers[source] == (node,) and source not in self._graph.outputs

    def _view(self, node: Node) -> None:
        source = self._layout.value(node.inputs[0])
        for name, found in zip(node.outputs, self._layout.view_of(node), strict=True):
            early = self._layout.placed(name)
            if early is not None:
                view = reshaped(early.view, source.shape)
                if view is not None and same_place(source.seen_as(view), source):
                    continue  # it was written there at once
            if found is None:
                target = self._layout.place(name)
                view = reshaped(target.view, source.shape)
                if view is None:
                    raise EngineError(f"the native engine cannot lay out {name}; use --engine onnxruntime")
                self._write(node.op, loops.copy(target.seen_as(view), source))
            else:
                self._layout.alias(name, found)

    def _reduce(self, node: Node) -> None:
        shape = self._graph.shape(node.inputs[0])
        if node.op == "ReduceMean":
            self._floats(Node(node.op, node.inputs[:1], node.outputs, {}))
        given = node.inputs[1] if len(node.inputs) > 1 and node.inputs[1] else None
        if "axes" in node.attributes or (node.attributes.get("noop_with_empty_axes", 0) and given is None):
            raise EngineError(f"the native engine knows {node.op} over axes that are an input; use --engine onnxruntime")
        axes = [a % len(shape) for a in self._graph.numbers(given)] if given else list(range(len(shape)))
        target = self._layout.place(node.output)
        kept = tuple(1 if a in axes else s for a, s in enumerate(shape))
        view = reshaped(target.view, kept)
        if view is None:
            raise EngineError(f"the native engine cannot lay out {node.output}; use --engine onnxruntime")
        value = self._expression(node.inputs[0])
        self._write(node.op, loops.reduce(node.op, target.seen_as(view), value, axes, shape))

    def _softmax(self, node: Node) -> None:
        self._last_axis(node)
        target = self._layout.place(node.output)
        dense = target if target.strides[-1] == 1 else self._layout.scratch(target.shape, "float32")
        self._write(node.op, loops.softmax(dense, self._expression(node.inputs[0]), self._target.lanes))
        if dense is not target:
            self._write("spread", loops.copy(target, dense))

    def _layer_normalization(self, node: Node) -> None:
        self._last_axis(node)
        if any(node.outputs[1:]):
            raise EngineError("the native engine knows LayerNormalization of one output only; use --engine onnxruntime")
        gain = self._layout.value(node.inputs[1])
        shift = self._layout.value(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        epsilon = float(node.attributes.get("epsilon", 1e-5))
        if not 0.0 <= epsilon < 1.0:
            raise EngineError(f"LayerNormalization: epsilon {epsilon} is outside 0 to 1; export again")
        target = self._layout.place(node.output)
        self._write(node.op, loops.layer_norm(target, self._expression(node.inputs[0]), gain, shift, epsilon))

    def _last_axis(self, node: Node) -> None:
        rank = len(self._graph.shape(node.inputs[0]))
        if node.attributes.get("axis", -1) % rank != rank - 1:
            raise EngineError(f"the native engine knows {node.op} over the last axis only; use --engine onnxruntime")

    def _concat(self, node: Node) -> None:
        whole = self._layout.place(node.output)
        for index, name in enumerate(node.inputs):
            part = whole.seen_as(whole.view[concat_part(self._graph, node, index)])
            source = self._layout.value(name)
            if not same_place(part, source):
                self._write(node.op, loops.copy(part, source))

    def _gather(self, node: Node) -> None:
        source, places = self._layout.addressed(self._layout.value(node.inputs[0])), self._layout.value(node.inputs[1])
        axis = node.attributes.get("axis", 0) % len(source.shape)
        if places.constant is not None:
            size = source.shape[axis]
            fixed = np.where(places.constant < 0, places.constant + size, places.constant)
            if fixed.min() < 0 or fixed.max() >= size:
                raise EngineError("the native engine meets a Gather outside its tensor; export again")
            if fixed.size == 1:
                at = int(fixed.reshape(()))
                view = source.view[(slice(None),) * axis + (at if places.view.ndim == 0 else slice(at, at + 1), ...)]
                self._layout.alias(node.output, source.seen_as(view.reshape(self._graph.shape(node.output))))
                return
            places = self._layout.constant(fixed)
        self._write(node.op, loops.gather(self._layout.place(node.output), source, places, axis, len(self._body) + 1))

    # -- products ------------------------------------------------------------------------------------------------------

    def _function(self, text: str, kind: str) -> str:
        """The name of a function with this text, in which it calls itself NAME."""
        if text not in self._functions:
            name = f"{kind}{len(self._functions)}"
            self._functions[text] = text.replace("NAME(", f"{name}(", 1)
        return self._functions[text].split("(", 1)[0].rsplit(" ", 1)[1]

    def _gemm(self, node: Node) -> None:
        at = node.attributes
        if at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0 or at.get("transA", 0):
            raise EngineError("the native engine knows plain Gemm only; use --engine onnxruntime")
        right = self._layout.value(node.inputs[1])
        if at.get("transB", 0):
            right = (
                self._layout.constant(np.ascontiguousarray(right.constant.T))
                if right.constant is not None
                else right.seen_as(right.view.T)
            )
        target = self._layout.place(node.output)
        self._multiply(target, self._layout.value(node.inputs[0]), right)
        if len(node.inputs) > 2 and node.inputs[2]:
            self._write("bias", loops.assign(target, elementwise("Add", [target, self._layout.value(node.inputs[2])])))

    def _matmul(self, node: Node) -> None:
        left, right = (self._layout.value(n) for n in node.inputs)
        if len(left.shape) < 2 or len(right.shape) < 2:
            raise EngineError("the native engine multiplies matrices only; use --engine onnxruntime")
        self._multiply(self._layout.place(node.output), left, right)

    def _dense(self, value: Value) -> Value:
        """The tensor with its last axis dense: itself, or a copy."""
        if value.shape[-1] == 1 or value.strides[-1] == 1:
            return value
        own = self._layout.scratch(value.shape, str(value.view.dtype))
        self._write("dense copy", loops.copy(own, value))
        return own

    def _multiply(self, target: Value, left: Value, right: Value) -> None:
        """target = left right, over whatever axes stand before the last two."""
        left, right = self._layout.addressed(left), self._dense(self._layout.addressed(right))
        batch = target.shape[:-2]
        if prod(batch) > _MOST_PRODUCTS:
            raise EngineError(f"the native engine takes {_MOST_PRODUCTS} products at a time; use --engine onnxruntime")
        (m, n), k = target.shape[-2:], left.shape[-1]
        a = Value(left.buffer, np.broadcast_to(left.view, (*batch, m, k)))
        b = Value(right.buffer, np.broadcast_to(right.view, (*batch, k, n)))
        goal = target if n == 1 or target.strides[-1] == 1 else self._layout.scratch(target.shape, "float32")
        # One factor for all of a batch: its rows are one product.
        text = matrix_product("NAME", self._target, m, n, k, (a.strides[-2], a.strides[-1]), b.strides[-2], goal.strides[-2])
        name = self._function(text, "product")
        calls = []
        for index in product(*(range(s) for s in batch)):
            at = [v.offset + sum(i * s for i, s in zip(index, v.strides, strict=False)) for v in (a, b, goal)]
            calls.append(
                f"{name}({a.buffer.pointer} + {at[0]}, {b.buffer.pointer} + {at[1]}, {goal.buffer.pointer} + {at[2]});"
            )
        self._write(f"product {m}x{k}x{n}", "\n".join(calls))
        if goal is not target:
            self._write("spread", loops.copy(target, goal))

    def _conv(self, node: Node) -> None:
        at = node.attributes
        weight = self._graph.constants.get(node.inputs[1])
        plain = at.get("group", 1) == 1 and set(at.get("dilations", (1, 1))) == {1}
        plain = plain and at.get("auto_pad", b"NOTSET") == b"NOTSET"
        shape, bias = self._graph.shape(node.inputs[0]), None
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self._graph.constants.get(node.inputs[2])
            plain = plain and bias is not None
        plain = plain and weight is not None and weight.ndim == len(shape) == 4 and weight.shape[1] == shape[1]
        if weight is None or not plain or tuple(at.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
            raise EngineError("the native engine knows plain convolutions of pictures only; use --engine onnxruntime")
        if max(*shape, *weight.shape) > _LARGEST_PICTURE:
            raise EngineError(f"the native engine takes pictures of up to {_LARGEST_PICTURE}; use --engine onnxruntime")
        source = self._layout.value(node.inputs[0])
        if not self._layout.is_bordered_for(node, source):
            inside = self._layout.bordered(node)
            self._write("border", loops.copy(inside, source))
            source = inside
        readers = self._graph.readers.get(node.output, ())
        relu = len(readers) == 1 and self._is_done_by_convolution(readers[0])
        name = readers[0].output if relu else node.output
        target = self._layout.place(name, channels_last=True)
        count, out, height, width = target.shape
        picture, channel, row, column = target.strides
        goal = target
        if out > 1 and channel != 1:
            own = self._layout.scratch((count, height, width, out), "float32")
            goal = own.seen_as(own.view.transpose(0, 3, 1, 2))
            picture, _, row, column = goal.strides
        channels, whole = source.shape[1], source.buffer
        window = Window(
            weight.shape[2:], tuple(at.get("strides", (1, 1))), channels, (out, height, width),
            (source.strides[2], source.strides[3]), (row, column),
        )  # fmt: skip
        kernels = self._layout.stored(packed_kernels(weight, window, self._target))
        shift = self._layout.stored(np.zeros(out, np.float32) if bias is None else bias)
        function = self._function(convolution("NAME", self._target, window, relu), "convolution")
        self._write(
            f"convolution {out}x{height}x{width}",
            f"for (int n = 0; n < {count}; n++) {function}({whole.pointer} + n * {source.strides[0]}, "
            f"{kernels.buffer.pointer}, {shift.buffer.pointer}, {goal.buffer.pointer} + {goal.offset} + n * {picture});",
        )
        if goal is not target:
            self._write("spread", loops.copy(target, goal))


def _names(text: str) -> list[str]:
    """The scratch buffers' names in a piece of C."""
    return re.findall(r"\bt\d+\b", text)
