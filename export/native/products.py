"""C for matrix products and convolutions: explicit vectors, so that accumulators stay in registers on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from clcr_edge.export.native.values import Array
from clcr_edge.export.native.vectors import pieces
from clcr_edge.export.native.vectors import relu as rectified


@dataclass(frozen=True)
class Target:
    """lanes: floats in a vector register; registers: how many there are."""

    lanes: int
    registers: int


def _blocks(found: Sequence[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    """The vectors in groups of about the same size, at most `most`."""
    count = -(-len(found) // most)
    for _, group in groupby(enumerate(found), key=lambda p: p[0] * count // len(found)):
        yield [piece for _, piece in group]


def matrix_product(name: str, target: Target, m: int, n: int, k: int, a: tuple[int, int], b: int, c: int) -> str:
    """A function name(A, B, C): C `[m, n]` = A `[m, k]` B `[k, n]`.

    a: strides of A; b, c: from row to row of B and C, whose columns lie dense.
    """
    lines = [f"static void {name}(const float *restrict A, const float *restrict B, float *restrict C) {{"]
    width = 8 if m == 1 else 4
    for block in _blocks(pieces(n, target.lanes), min(width, target.registers // 4)):
        rows = max(1, min(m, 8, (target.registers - len(block) - 1) // len(block)))
        whole = m // rows
        if whole:
            lines.append(f"for (int i = 0; i < {whole}; i++) {{")
            lines += _product_tile(block, rows, k, a, b, c, f"i * {rows}")
            lines.append("}")
        if m % rows:
            lines += ["{", *_product_tile(block, m % rows, k, a, b, c, str(whole * rows)), "}"]
    return "\n".join([*lines, "}"])


def _product_tile(
    block: list[tuple[int, int]], rows: int, k: int, a: tuple[int, int], b: int, c: int, first: str
) -> list[str]:  # fmt: skip
    # A few accumulators would wait for each other: then the sum is split.
    ways = next(w for w in (4, 2, 1) if k % w == 0 and (w == 1 or rows * len(block) * w <= 16))
    lines = [f"const float *x = A + ({first}) * {a[0]}; float *y = C + ({first}) * {c};"]
    for w in range(ways):
        lines += [f"v{n} s{w}_{r}_{at} = {{0}};" for r in range(rows) for at, n in block]
    lines.append(f"for (int k = 0; k < {k}; k += {ways}) {{")
    for w in range(ways):
        lines += [f"v{n} b{w}_{at} = *(const v{n} *)(B + (k + {w}) * {b} + {at});" for at, n in block]
        for r in range(rows):
            lines.append(f"{{ float e = x[{r * a[0]} + (k + {w}) * {a[1]}];")
            lines += [f"s{w}_{r}_{at} += e * b{w}_{at};" for at, _ in block]
            lines.append("}")
    lines.append("}")
    for r in range(rows):
        for at, n in block:
            total = " + ".join(f"s{w}_{r}_{at}" for w in range(ways))
            lines.append(f"*(v{n} *)(y + {r * c + at}) = {total};")
    return lines


@dataclass(frozen=True)
class Window:
    """A convolution's sizes. x and y: strides of a row and of a pixel; channels lie dense. Its border is part of x."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    channels: int
    out: tuple[int, int, int]  # channels, rows, columns
    x: tuple[int, int]
    y: tuple[int, int]


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _tile(window: Window, target: Target) -> tuple[int, int, int]:
    """(vectors, rows, columns) of outputs kept in registers: the one that loads least for what it multiplies."""
    count = len(pieces(window.out[0], target.lanes))
    options = [
        (v, r, c)
        for v in range(1, min(count, 4) + 1)
        for r in _divisors(window.out[1])
        for c in _divisors(window.out[2])
        if v * r * c + v + 1 <= target.registers
    ]
    return min(options, key=lambda t: (t[0] + t[1] * t[2]) / (t[0] * t[1] * t[2]) + (0.2 if count % t[0] else 0.0))


def packed_kernels(weight: Array, window: Window, target: Target) -> Array:
    """ONNX's `[out, in, rows, columns]` in the order in which `convolution` reads it."""
    vectors, _, _ = _tile(window, target)
    parts = []
    for block in _blocks(pieces(window.out[0], target.lanes), vectors):
        first, last = block[0][0], block[-1][0] + block[-1][1]
        parts.append(weight[first:last].transpose(2, 3, 1, 0).ravel())
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def convolution(name: str, target: Target, window: Window, relu: bool) -> str:
    """A function name(x, w, b, y): the convolution, its bias, and relu if asked for."""
    vectors, rows, columns = _tile(window, target)
    (kh, kw), (sy, sx), channels = window.kernel, window.stride, window.channels
    (out, height, width), (row, pixel) = window.out, window.x
    arguments = ", ".join([*(f"const float *restrict {a}" for a in "xwb"), "float *restrict y"])
    lines = [f"static void {name}({arguments}) {{"]
    taps = 0
    spots = [(r, c) for r in range(rows) for c in range(columns)]
    for block in _blocks(pieces(out, target.lanes), vectors):
        size = block[-1][0] + block[-1][1] - block[0][0]
        base = block[0][0]
        lines.append(f"for (int i = 0; i < {height // rows}; i++) for (int j = 0; j < {width // columns}; j++) {{")
        lines.append(f"const float *p = x + i * {rows * sy * row} + j * {columns * sx * pixel};")
        lines.append(f"const float *q = w + {taps};")
        lines.append(f"float *o = y + i * {rows * window.y[0]} + j * {columns * window.y[1]};")
        for at, n in block:
            lines.append(f"const v{n} b{at} = *(const v{n} *)(b + {at});")
        lines += [f"v{n} s{s}_{at} = b{at};" for s, _ in enumerate(spots) for at, n in block]
        # Where pixels lie side by side without a gap, a kernel's row is one run of numbers.
        runs, length = (1, kw * channels) if pixel == channels or kw == 1 else (kw, channels)
        lines.append(f"for (int k = 0; k < {kh}; k++) for (int l = 0; l < {runs}; l++) {{")
        lines.append(f"const float *u = p + k * {row} + l * {pixel};")
        lines.append(f"for (int c = 0; c < {length}; c++, q += {size}) {{")
        lines += [f"v{n} w{at} = *(const v{n} *)(q + {at - base});" for at, n in block]
        for s, (r, c) in enumerate(spots):
            lines.append(f"{{ float e = u[c + {r * sy * row + c * sx * pixel}];")
            lines += [f"s{s}_{at} += e * w{at};" for at, _ in block]
            lines.append("}")
        lines.append("}}")
        for s, (r, c) in enumerate(spots):
            for at, n in block:
                value = rectified(f"s{s}_{at}", n) if relu else f"s{s}_{at}"
                lines.append(f"*(v{n} *)(o + {r * window.y[0] + c * window.y[1] + at}) = {value};")
        lines.append("}")
        taps += kh * kw * channels * size
    return "\n".join([*lines, "}"])
