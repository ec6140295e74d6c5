"""Random static graphs of the operators that the native engine writes: what a careful choice of cases would miss."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from onnx import TensorProto, helper

F = TensorProto.FLOAT
Shape = list[int]
_MOST = 20_000  # elements of a tensor


class RandomGraph:
    """nodes, inputs, outputs and constants, as `onnx.helper` wants them; by seed."""

    def __init__(self, seed: int) -> None:
        self._random, self._numbers = random.Random(seed), np.random.default_rng(seed)
        self.inputs: dict[str, Shape] = {"a": [3, 4, 6], "b": [3, 4, 6], "c": [4, 6], "d": [3, 1, 6]}
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {"zero": np.array(0.0, np.float32)}
        self._shapes = dict(self.inputs)
        makers = (
            self._one_sided, self._two_sided, self._reduced, self._softmax, self._norm, self._concat, self._slice,
            self._transpose, self._reshape, self._unsqueeze, self._gather, self._product, self._where, self._split,
        )  # fmt: skip
        while len(self.nodes) < 10:
            name = self._random.choice(list(self._shapes))
            self._random.choice(makers)(name, self._shapes[name])
        made = [n for n in self._shapes if n not in self.inputs]
        self.outputs = {n: self._shapes[n] for n in self._random.sample(made, min(len(made), 3))}

    def _add(self, op: str, inputs: list[str], *shapes: Any, **attributes: Any) -> None:
        names = [f"v{len(self._shapes) + k}" for k in range(len(shapes))]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        self._shapes.update(zip(names, (list(s) for s in shapes), strict=True))

    def _constant(self, value: Any, dtype: Any = np.int64) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.array(value, dtype)
        return name

    def _axis(self, shape: Shape) -> tuple[int, int]:
        """An axis, and the same as a graph may write it: from the end."""
        axis = self._random.randrange(len(shape))
        return axis, self._random.choice([axis, axis - len(shape)])

    def _together(self, shape: Shape) -> tuple[str, Shape] | None:
        """Another tensor that spreads with this shape, and what comes of it."""
        other = self._random.choice(list(self._shapes))
        try:
            out = np.broadcast_shapes(tuple(shape), tuple(self._shapes[other]))
        except ValueError:
            return None
        return (other, list(out)) if len(out) < 6 and np.prod(out) < _MOST else None

    def _one_sided(self, name: str, shape: Shape) -> None:
        self._add(self._random.choice(["Relu", "Neg", "Abs", "Sigmoid"]), [name], shape)

    def _two_sided(self, name: str, shape: Shape) -> None:
        if found := self._together(shape):
            self._add(self._random.choice(["Add", "Sub", "Mul", "Max"]), [name, found[0]], found[1])

    def _where(self, name: str, shape: Shape) -> None:
        if found := self._together(shape):
            asked = f"q{len(self.nodes)}"
            self.nodes.append(helper.make_node("Greater", [found[0], "zero"], [asked]))
            self._add("Where", [asked, name, "zero"], found[1])

    def _reduced(self, name: str, shape: Shape) -> None:
        if shape:
            axes = sorted(self._random.sample(range(len(shape)), self._random.randint(1, len(shape))))
            keep = self._random.randint(0, 1)
            out = np.zeros(shape).sum(axis=tuple(axes), keepdims=bool(keep)).shape
            op = self._random.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
            self._add(op, [name, self._constant([a - len(shape) for a in axes])], out, keepdims=keep)

    def _softmax(self, name: str, shape: Shape) -> None:
        if shape:
            self._add("Softmax", [name], shape, axis=-1)

    def _norm(self, name: str, shape: Shape) -> None:
        if shape:
            gain = self._constant(self._numbers.random(shape[-1]), np.float32)
            self._add("LayerNormalization", [name, gain], shape, axis=-1)

    def _concat(self, name: str, shape: Shape) -> None:
        if not shape:
            return
        axis, written = self._axis(shape)
        alike = [
            n for n, s in self._shapes.items()
            if len(s) == len(shape) and all(s[k] == shape[k] for k in range(len(s)) if k != axis)
        ]  # fmt: skip
        parts = self._random.choices(alike, k=self._random.randint(1, 3))
        out = list(shape)
        out[axis] = sum(self._shapes[n][axis] for n in parts)
        if np.prod(out) < _MOST:
            self._add("Concat", parts, out, axis=written)

    def _slice(self, name: str, shape: Shape) -> None:
        if not shape:
            return
        axis, written = self._axis(shape)
        size, step = shape[axis], self._random.choice([1, 1, 2])
        first = self._random.randint(0, size - 1)
        last = self._random.randint(first + 1, size)
        out = list(shape)
        out[axis] = len(range(first, last, step))
        start = first - size if first and self._random.random() < 0.3 else first
        end = self._random.choice([last, 2**63 - 1]) if last == size else self._random.choice([last, last - size])
        self._add("Slice", [name, *(self._constant([v]) for v in (start, end, written, step))], out)

    def _transpose(self, name: str, shape: Shape) -> None:
        if shape:
            order = self._random.sample(range(len(shape)), len(shape))
            self._add("Transpose", [name], [shape[k] for k in order], perm=order)

    def _reshape(self, name: str, shape: Shape) -> None:
        size = int(np.prod(shape))
        rows = self._random.choice([d for d in range(1, size + 1) if size % d == 0])
        out = self._random.choice([[size], [1, size], [rows, size // rows], [rows, 1, size // rows]])
        self._add("Reshape", [name, self._constant(out)], out)

    def _unsqueeze(self, name: str, shape: Shape) -> None:
        if len(shape) < 4:
            axis = self._random.randint(0, len(shape))
            self._add("Unsqueeze", [name, self._constant([axis])], [*shape[:axis], 1, *shape[axis:]])

    def _gather(self, name: str, shape: Shape) -> None:
        if shape:
            axis, written = self._axis(shape)
            picked: Shape = self._random.choice([[], [1], [3], [2, 2]])
            places = self._numbers.integers(-shape[axis], shape[axis], picked)
            self._add("Gather", [name, self._constant(places)], [*shape[:axis], *picked, *shape[axis + 1 :]], axis=written)

    def _product(self, name: str, shape: Shape) -> None:
        if len(shape) > 1:
            width = self._random.choice([1, 3, 8, 17])
            factor = self._constant(0.3 * self._numbers.standard_normal((shape[-1], width)), np.float32)
            self._add("MatMul", [name, factor], [*shape[:-1], width])

    def _split(self, name: str, shape: Shape) -> None:
        if shape:
            axis, written = self._axis(shape)
            if shape[axis] % 2 == 0:
                half = list(shape)
                half[axis] //= 2
                self._add("Split", [name], half, half, axis=written, num_outputs=2)
