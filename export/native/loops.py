"""C for what works element by element, and for reductions, softmax, normalisation and copies.

An element-by-element operator whose result only one other reads is not stored: its expression is written where it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from clcr_edge.errors import EngineError
from clcr_edge.export.native.values import Value, reshaped
from clcr_edge.export.native.vectors import pieces

PRELUDE = """
static inline float clcr_relu(float x) { return x < 0.0f ? 0.0f : x; }
static inline float clcr_least(float x, float most) { return x > most ? most : x; }
static inline float clcr_most(float x, float least) { return x < least ? least : x; }
static inline float clcr_max(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
static inline float clcr_min(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }
static inline int64_t clcr_max_int(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t clcr_min_int(int64_t a, int64_t b) { return a < b ? a : b; }
static inline float clcr_pick(int which, float yes, float no) { return which ? yes : no; } /* both are read: no branch */
static inline int64_t clcr_pick_int(int which, int64_t yes, int64_t no) { return which ? yes : no; }
static inline float clcr_square(float x) { return x * x; }
"""

_TEMPLATES = {
    "Add": "({0} + {1})", "Sub": "({0} - {1})", "Mul": "({0} * {1})", "Div": "({0} / {1})",
    "Greater": "({0} > {1})", "Less": "({0} < {1})", "GreaterOrEqual": "({0} >= {1})", "LessOrEqual": "({0} <= {1})",
    "Equal": "({0} == {1})", "And": "({0} & {1})", "Or": "({0} | {1})",
    "Max": "clcr_max({0}, {1})", "Min": "clcr_min({0}, {1})",
    "Where": "clcr_pick({0}, {1}, {2})", "Pow": "powf({0}, {1})",
    "Relu": "clcr_relu({0})", "Sqrt": "__builtin_sqrtf({0})", "Abs": "__builtin_fabsf({0})",
    "Reciprocal": "(1.0f / {0})", "Sigmoid": "(1.0f / (1.0f + clcr_exp(-{0})))", "Not": "(!{0})", "Neg": "(-{0})",
    "Exp": "clcr_exp({0})", "Clip": "", "Cast": "",
}  # fmt: skip
_STARTS = {
    ("ReduceMin", "bool"): "1",
    **{("ReduceMax", f"int{n}"): f"INT{n}_MIN" for n in (32, 64)},
    **{("ReduceMin", f"int{n}"): f"INT{n}_MAX" for n in (32, 64)},
}  # where nothing has been seen yet
_WIDEST = 2048  # numbers in a row of a softmax, a normalisation, or a sum of rows
_VERY_LONG = 512  # elements of a sum that is worth four at once
_LONG = 32  # elements in a row that is worth a question of its own
ELEMENTWISE = frozenset(_TEMPLATES)
# How many inputs: what is written for two would drop a third in silence.
INPUTS = {name: template.count("{") for name, template in _TEMPLATES.items()} | {"Cast": 1}
ANY_NUMBERS = frozenset(
    {"Add", "Sub", "Mul", "Clip", "Max", "Min", "Where", "Cast", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"}
    | {"And", "Or", "Not"}
)  # the others are written for float32
_CASTS = {"float32": "((float){0})", "int32": "((int32_t){0})", "int64": "((int64_t){0})", "bool": "({0} != 0)"}
REDUCTIONS = {
    "ReduceSum": ("0.0f", "{0} + {1}", "+"), "ReduceMean": ("0.0f", "{0} + {1}", "+"),
    "ReduceMax": ("-INFINITY", "({1} > {0} ? {1} : {0})", "max"), "ReduceMin": ("INFINITY", "({1} < {0} ? {1} : {0})", "min"),
}  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """C for one element. template: with {0}, {1}, ... for the parts, each a value or another expression."""

    template: str
    parts: tuple[Expression | Value, ...]

    def leaves(self) -> Iterator[Value]:
        """The tensors that it reads."""
        for part in self.parts:
            yield from part.leaves() if isinstance(part, Expression) else (part,)

    def text(self, read: Callable[[Value], str]) -> str:
        """The C text, given how a tensor's element is read."""
        parts = [p.text(read) if isinstance(p, Expression) else read(p) for p in self.parts]
        return self.template.format(*parts)


def elementwise(op: str, parts: Sequence[Expression | Value | None], to: str = "float32") -> Expression:
    """The expression of an element-by-element operator. to: a Cast's type. A Clip's limits may be None."""
    if op == "Cast":
        template = _CASTS[to]
    elif op == "Clip":
        low, high = ([*parts, None, None])[1:3]
        template = "{0}" if low is None else "clcr_most({0}, {1})"
        if high is not None:
            template = f"clcr_least({template}, {{{1 if low is None else 2}}})"
    elif op == "Pow" and isinstance(parts[1], Value) and _literal(parts[1]) in ("(2.0f)", "(2)"):
        return Expression("clcr_square({0})", tuple(p for p in parts[:1] if p is not None))
    else:
        template = _TEMPLATES[op]
    if to.startswith("int"):
        for name in ("max", "min", "pick"):
            template = template.replace(f"clcr_{name}(", f"clcr_{name}_int(")
        template = template.replace("clcr_most(", "clcr_max_int(").replace("clcr_least(", "clcr_min_int(")
    return Expression(template, tuple(p for p in parts if p is not None))


def _literal(value: Value) -> str | None:
    """A constant of one element as C, else None."""
    if value.constant is None or value.constant.size != 1:
        return None
    number = value.constant.reshape(())[()]
    if value.constant.dtype != np.float32:
        return f"({int(number)})"
    if not np.isfinite(number):
        return "NAN" if np.isnan(number) else "INFINITY" if number > 0 else "(-INFINITY)"
    return f"({float(number)!r}f)"


class Nest:
    """Loops over a shape, with the fewest axes that all tensors allow."""

    def __init__(self, shape: Sequence[int], tensors: Sequence[Value], keep: int = 0) -> None:
        """keep: that many last axes are not merged with those before them."""
        spread = {id(t): Value(t.buffer, np.broadcast_to(t.view, shape), t.constant) for t in tensors}
        strides = {key: list(t.strides) for key, t in spread.items()}
        kept = len(shape) - keep
        merged: list[tuple[int, dict[int, int]]] = []
        for axis, size in enumerate(shape):
            if size == 1 and axis < kept:
                continue
            here = {key: s[axis] for key, s in strides.items()}
            if merged and axis < kept and all(merged[-1][1][k] == here[k] * size for k in here):
                merged[-1] = (merged[-1][0] * size, here)
            else:
                merged.append((size, here))
        self.sizes = [size for size, _ in merged]
        self._strides = [s for _, s in merged]
        self._offsets = {key: t.offset for key, t in spread.items()}

    def index(self, tensor: Value) -> str:
        """Where in its buffer a tensor's element lies, in terms of i0, i1, ..."""
        terms = [str(self._offsets[id(tensor)])] if self._offsets[id(tensor)] else []
        for axis, strides in enumerate(self._strides):
            stride = strides[id(tensor)]
            if stride:
                terms.append(f"i{axis}" if stride == 1 else f"i{axis} * {stride}")
        return " + ".join(terms) or "0"

    def element(self, tensor: Value) -> str:
        """A tensor's element in C."""
        return _literal(tensor) or f"{tensor.buffer.pointer}[{self.index(tensor)}]"

    def loops(self, body: str, first: int = 0, last: int | None = None, simd: str = "#pragma omp simd") -> str:
        """for-loops over the axes first..last around a body, the innermost one vectorised."""
        stop = len(self.sizes) if last is None else last
        text = body
        for axis in reversed(range(first, stop)):
            head = f"for (int i{axis} = 0; i{axis} < {self.sizes[axis]}; i{axis}++)"
            hint = f"{simd}\n" if axis == stop - 1 and axis == len(self.sizes) - 1 and simd and self.sizes[axis] > 1 else ""
            text = f"{hint}{head} {{\n{text}\n}}"
        return text


def _on_stack(width: int) -> int:
    """The width of a row that is held at once. Raises `EngineError` for one that a stack, or the compiler, would not bear."""
    if width > _WIDEST:
        raise EngineError(f"the native engine takes rows of up to {_WIDEST} numbers, not {width}; use --engine onnxruntime")
    return width


def assign(target: Value, value: Expression) -> str:
    """target = value, element by element."""
    nest = Nest(target.shape, [target, *value.leaves()])
    picked = _whole_rows(nest, target, value)
    return picked or nest.loops(f"{nest.element(target)} = {value.text(nest.element)};")


def _whole_rows(nest: Nest, target: Value, value: Expression) -> str | None:
    """A Where that takes long rows from one side or the other: it is asked once a row, not once an element."""
    last = len(nest.sizes) - 1
    if not value.template.startswith("clcr_pick") or last < 0 or nest.sizes[last] < _LONG:
        return None
    test, *sides = (p if isinstance(p, Expression) else Expression("{0}", (p,)) for p in value.parts)
    asked = test.text(nest.element)
    if f"i{last}" in asked:
        return None
    yes, no = (nest.loops(f"{nest.element(target)} = {s.text(nest.element)};", last) for s in sides)
    return nest.loops(f"if ({asked}) {{\n{yes}\n}} else {{\n{no}\n}}", 0, last, simd="")


def copy(target: Value, source: Value) -> str:
    """target = source."""
    return assign(target, Expression("{0}", (source,)))


def reduce(op: str, target: Value, value: Expression, axes: Sequence[int], shape: Sequence[int]) -> str:
    """target = value of `shape`, reduced over axes. target's shape has 1 at the axes."""
    start, step, simd = REDUCTIONS[op]
    count = prod(shape[a] for a in axes)
    start = _STARTS.get((op, str(target.view.dtype)), start if target.view.dtype == np.float32 else "0")
    scale = f" * {1.0 / count!r}f" if op == "ReduceMean" else ""
    ctype = target.buffer.ctype
    left = [a for a in range(len(shape)) if a not in axes]
    order = [*left, *axes]

    def turned(v: Value) -> Value:
        return Value(v.buffer, np.broadcast_to(v.view, shape).transpose(order), v.constant)

    parts = {id(v): turned(v) for v in value.leaves()}
    out = Value(target.buffer, target.view.transpose(order))
    shown = tuple(shape[a] for a in order)
    inner = [v.strides[-1] for v in parts.values() if v.constant is None or v.constant.size > 1]
    if left and any(s > 1 for s in inner) and shape[left[-1]] > 1:
        return _reduce_rows(start, step, scale, ctype, out, value, parts, shown, len(left))
    shown, parts, out, count_of = _as_one_axis(shown, parts, out, len(left))
    nest = Nest(shown, [out, *parts.values()], keep=count_of)
    outer = len(nest.sizes) - count_of
    read = lambda v: nest.element(parts[id(v)])  # noqa: E731
    hint = f"#pragma omp simd reduction({simd}: sum)"
    body = nest.loops(f"sum = {step.format('sum', value.text(read))};", outer, simd=hint)
    if simd == "+" and ctype == "float" and count_of == 1 and nest.sizes[-1] >= _VERY_LONG and nest.sizes[-1] % 4 == 0:
        body = _in_quarters(f"i{outer}", nest.sizes[-1] // 4, value.text(read))
    place = f"{out.buffer.pointer}[{_outer_index(nest, out, outer)}]"
    return nest.loops(f"{ctype} sum = {start};\n{body}\n{place} = sum{scale};", 0, outer, simd="")


def _as_one_axis(
    shape: tuple[int, ...], parts: dict[int, Value], out: Value, left: int
) -> tuple[tuple[int, ...], dict[int, Value], Value, int]:
    """The axes after `left` as one, where no tensor needs a copy for it; and how many there are now."""
    one = (*shape[:left], prod(shape[left:]))
    views = {key: reshaped(v.view, one) for key, v in parts.items()}
    goal = reshaped(out.view, (*out.shape[:left], 1))
    if goal is None or any(v is None for v in views.values()):
        return shape, parts, out, len(shape) - left
    merged = {key: Value(parts[key].buffer, v, parts[key].constant) for key, v in views.items() if v is not None}
    return one, merged, Value(out.buffer, goal), 1


def _in_quarters(index: str, quarter: int, element: str) -> str:
    """A long sum as four at once: each addition of one alone would wait for the one before."""
    parts = [re.sub(rf"\b{index}\b", f"({index} + {k * quarter})", element) for k in range(4)]
    adds = " ".join(f"sum{k} += {part};" for k, part in enumerate(parts))
    return (
        "float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;\n#pragma omp simd reduction(+: sum0, sum1, sum2, sum3)\n"
        f"for (int {index} = 0; {index} < {quarter}; {index}++) {{ {adds} }}\nsum += (sum0 + sum1) + (sum2 + sum3);"
    )


def _outer_index(nest: Nest, tensor: Value, outer: int) -> str:
    """A tensor's place where the loops after `outer` are not open."""
    terms = [t for t in nest.index(tensor).split(" + ") if not t.startswith("i") or int(t.split(" ")[0][1:]) < outer]
    return " + ".join(terms) or "0"


def _reduce_rows(
    start: str, step: str, scale: str, ctype: str, out: Value, value: Expression, parts: dict[int, Value],
    shape: tuple[int, ...], left: int,
) -> str:  # fmt: skip
    """Rows are added to a row: where the last axis that stays is the one whose elements lie side by side."""
    order = [*range(left - 1), *range(left, len(shape)), left - 1]
    turned = {key: Value(v.buffer, v.view.transpose(order), v.constant) for key, v in parts.items()}
    goal = Value(out.buffer, out.view.transpose(order))
    shown = tuple(shape[a] for a in order)
    reduced = len(shape) - left
    nest = Nest(shown, [goal, *turned.values()], keep=reduced + 1)
    axes = len(nest.sizes)
    outer, width = axes - reduced - 1, _on_stack(shown[-1])
    inner = f"i{axes - 1}"
    read = lambda v: nest.element(turned[id(v)])  # noqa: E731
    each = nest.loops(f"row[{inner}] = {step.format(f'row[{inner}]', value.text(read))};", outer)
    place = _outer_index(nest, goal, outer)
    stride = goal.strides[-1]
    body = (
        f"{ctype} row[{width}];\nfor (int j = 0; j < {width}; j++) row[j] = {start};\n{each}\n"
        f"for (int j = 0; j < {width}; j++) {goal.buffer.pointer}[{place} + j * {stride}] = row[j]{scale};"
    )
    return nest.loops(body, 0, outer, simd="")


def softmax(target: Value, value: Expression, lanes: int) -> str:
    """Softmax over the last axis, whose elements lie side by side in `target`: a row is a few vectors, held in registers."""
    nest = Nest(target.shape, [target], keep=1)
    last = len(nest.sizes) - 1
    spans = pieces(_on_stack(target.shape[-1]), lanes)
    row = f"{target.buffer.pointer} + {_outer_index(nest, target, last)}"
    # Sums of a width are brought together before one of them is brought to a number, which is the slow part.
    widths = {n: [at for at, m in spans if m == n] for _, n in spans}
    tops = [f"clcr_top{n}(x{at})" for at, n in spans]
    sums = [f"clcr_sum{n}({' + '.join(f'x{at}' for at in found)})" for n, found in widths.items()]
    lines = [
        f"float *y = {row};",
        *(f"v{n} x{at} = *(v{n} *)(y + {at});" for at, n in spans),
        f"float top = {tops[0]}, other;",
        *(f"other = {t}; top = other > top ? other : top;" for t in tops[1:]),
        *(f"x{at} = clcr_exp{n}(x{at} - top);" for at, n in spans),
        f"float share = 1.0f / ({' + '.join(sums)});",
        *(f"*(v{n} *)(y + {at}) = x{at} * share;" for at, n in spans),
    ]
    # All of it first: a row read back at once, in other vectors than it was written in, would wait for its own stores.
    return assign(target, value) + "\n" + nest.loops("\n".join(lines), 0, last, simd="")


def layer_norm(target: Value, value: Expression, gain: Value, shift: Value | None, epsilon: float) -> str:
    """Layer normalisation over the last axis."""
    parts = [target, *value.leaves(), gain, *([] if shift is None else [shift])]
    nest = Nest(target.shape, parts, keep=1)
    last, width = len(nest.sizes) - 1, _on_stack(target.shape[-1])
    y, i = nest.element(target), f"i{len(nest.sizes) - 1}"
    add = "" if shift is None else f" + {nest.element(shift)}"
    sums = "#pragma omp simd reduction(+: sum)"
    body = "\n".join(
        [
            f"float sum = 0.0f, row[{width}];",
            nest.loops(f"float e = {value.text(nest.element)};\nrow[{i}] = e;\nsum += e;", last, simd=sums),
            f"float mean = sum / {width};\nsum = 0.0f;",
            nest.loops(f"float e = row[{i}] - mean;\nrow[{i}] = e;\nsum += e * e;", last, simd=sums),
            f"float scale = 1.0f / __builtin_sqrtf(sum / {width} + {epsilon!r}f);",
            nest.loops(f"{y} = row[{i}] * scale * {nest.element(gain)}{add};", last),
        ]
    )
    return nest.loops(body, 0, last, simd="")


def gather(target: Value, source: Value, places: Value, axis: int, failure: int) -> str:
    """target = source at places along an axis. A place that the source does not have ends the step with `failure`."""
    before, after = source.shape[:axis], source.shape[axis + 1 :]
    picked = places.shape
    shape = (*before, *picked, *after)
    # The source without its axis, spread over the places; the axis' own stride is added by hand.
    first = np.moveaxis(source.view, axis, 0)[0, ...]
    still = first.reshape(*before, *(1,) * len(picked), *after)
    moved = Value(source.buffer, np.broadcast_to(still, shape))
    where = Value(
        places.buffer, np.broadcast_to(places.view.reshape(*(1,) * axis, *picked, *(1,) * len(after)), shape), places.constant
    )
    out = Value(target.buffer, target.view.reshape(shape) if target.shape != shape else target.view)
    nest = Nest(shape, [out, moved, where], keep=len(after))
    split = len(nest.sizes) - len(after)
    step, size = source.strides[axis], source.shape[axis]
    check = "" if places.constant is not None else f"if ((uint64_t)at >= {size}u) return {failure};\n"
    body = nest.loops(f"{nest.element(out)} = {source.buffer.pointer}[{nest.index(moved)} + at * {step}];", split)
    return nest.loops(f"int64_t at = {nest.element(where)};\n{check}{body}", 0, split, simd="")
