"""Digits and letters drawn by this project: stroke skeletons, bent at random, rendered with soft edges by numpy alone.

The digits make the synthetic bank (`make_synthetic`); the letters are what a digit must not be mistaken for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clcr_edge.packets import ByteArray, FloatArray

Point = tuple[float, float]
# A stroke is (curved?, points); x to the right, y down, the glyph in 0..1. Curved strokes are Catmull-Rom splines.
Stroke = tuple[bool, tuple[Point, ...]]
Skeleton = tuple[Stroke, ...]


def _ring(cx: float, cy: float, rx: float, ry: float, start: float = -90.0, sweep: float = 360.0) -> Stroke:
    angles = np.deg2rad(start + sweep * np.linspace(0.0, 1.0, 9))
    return (True, tuple((cx + rx * float(np.cos(a)), cy + ry * float(np.sin(a))) for a in angles))


def _line(*points: Point) -> Stroke:
    return (False, points)


def _curve(*points: Point) -> Stroke:
    return (True, points)


_BOWL_5 = ((0.25, 0.45), (0.5, 0.38), (0.76, 0.52), (0.78, 0.75), (0.55, 0.96), (0.2, 0.9))
DIGIT_SKELETONS: tuple[tuple[Skeleton, ...], ...] = (
    (  # 0: round, narrow, with an overlap where the pen meets its start
        (_ring(0.5, 0.5, 0.36, 0.47),),
        (_ring(0.5, 0.5, 0.27, 0.48),),
        (_ring(0.5, 0.5, 0.33, 0.46, -60.0, 385.0),),
        (_ring(0.5, 0.5, 0.32, 0.47, -110.0, 345.0),),
    ),
    (  # 1: bare stroke, with a flag, with flag and foot
        (_line((0.5, 0.03), (0.5, 0.97)),),
        (_line((0.28, 0.26), (0.54, 0.03), (0.54, 0.97)),),
        (_line((0.28, 0.22), (0.52, 0.03), (0.52, 0.96)), _line((0.25, 0.96), (0.78, 0.96))),
        (_curve((0.34, 0.24), (0.45, 0.17), (0.55, 0.03)), _line((0.55, 0.03), (0.5, 0.97))),
    ),
    (  # 2: straight foot, looped foot, angular
        (
            _curve((0.2, 0.26), (0.34, 0.06), (0.62, 0.04), (0.78, 0.22), (0.68, 0.5), (0.2, 0.95)),
            _line((0.2, 0.95), (0.82, 0.95)),
        ),
        (
            _curve(
                (0.2, 0.22),
                (0.45, 0.03),
                (0.76, 0.17),
                (0.7, 0.48),
                (0.35, 0.86),
                (0.2, 0.85),
                (0.24, 0.74),
                (0.5, 0.86),
                (0.84, 0.92),
            ),
        ),
        (_curve((0.22, 0.2), (0.5, 0.02), (0.8, 0.2), (0.6, 0.58)), _line((0.6, 0.58), (0.18, 0.96), (0.8, 0.93))),
    ),
    (  # 3: round, flat top, tight waist
        (
            _curve((0.22, 0.14), (0.5, 0.03), (0.76, 0.2), (0.66, 0.42), (0.42, 0.48)),
            _curve((0.42, 0.48), (0.74, 0.54), (0.8, 0.78), (0.52, 0.97), (0.18, 0.86)),
        ),
        (
            _line((0.22, 0.05), (0.76, 0.05), (0.46, 0.42)),
            _curve((0.46, 0.42), (0.78, 0.52), (0.78, 0.82), (0.48, 0.97), (0.18, 0.88)),
        ),
        (
            _curve(
                (0.24, 0.1),
                (0.6, 0.03),
                (0.74, 0.24),
                (0.5, 0.45),
                (0.38, 0.5),
                (0.52, 0.48),
                (0.78, 0.66),
                (0.64, 0.94),
                (0.2, 0.92),
            ),
        ),
    ),
    (  # 4: open, closed, leaning
        (_line((0.28, 0.05), (0.2, 0.58), (0.82, 0.58)), _line((0.68, 0.3), (0.66, 0.97))),
        (_line((0.66, 0.97), (0.66, 0.03), (0.16, 0.66), (0.86, 0.66)),),
        (_curve((0.3, 0.06), (0.22, 0.4), (0.32, 0.56), (0.72, 0.5)), _line((0.76, 0.06), (0.62, 0.97))),
        (_line((0.5, 0.03), (0.18, 0.62), (0.84, 0.62)), _line((0.64, 0.38), (0.64, 0.97))),
    ),
    (  # 5: bar first, one stroke, hooked
        (_line((0.76, 0.05), (0.3, 0.05), (0.25, 0.45)), _curve(*_BOWL_5)),
        (
            _line((0.8, 0.04), (0.34, 0.06), (0.28, 0.42)),
            _curve((0.28, 0.42), (0.62, 0.4), (0.8, 0.64), (0.66, 0.92), (0.2, 0.95)),
        ),
        (_curve((0.78, 0.04), (0.5, 0.08), (0.3, 0.08)), _line((0.3, 0.08), (0.26, 0.45)), _curve(*_BOWL_5)),
    ),
    (  # 6: curved back, straight back, small loop
        (_curve((0.72, 0.06), (0.4, 0.2), (0.22, 0.6), (0.36, 0.94), (0.68, 0.92), (0.78, 0.7), (0.56, 0.52), (0.26, 0.68)),),
        (_line((0.62, 0.03), (0.3, 0.55)), _ring(0.5, 0.72, 0.26, 0.24, -140.0, 360.0)),
        (_curve((0.62, 0.03), (0.3, 0.3), (0.2, 0.7), (0.42, 0.97), (0.7, 0.84), (0.66, 0.62), (0.4, 0.6), (0.23, 0.8)),),
    ),
    (  # 7: plain, with a bar, with a hook, curved
        (_line((0.18, 0.06), (0.8, 0.06), (0.42, 0.97)),),
        (_line((0.18, 0.06), (0.8, 0.06), (0.42, 0.97)), _line((0.32, 0.5), (0.74, 0.5))),
        (_line((0.18, 0.18), (0.2, 0.05), (0.8, 0.06), (0.5, 0.97)),),
        (_curve((0.18, 0.08), (0.5, 0.1), (0.8, 0.05)), _curve((0.8, 0.05), (0.58, 0.42), (0.46, 0.97))),
    ),
    (  # 8: two rings, one stroke, unequal
        (_ring(0.5, 0.26, 0.24, 0.22, 90.0), _ring(0.5, 0.73, 0.3, 0.24)),
        (
            _curve(
                (0.72, 0.14),
                (0.48, 0.03),
                (0.26, 0.2),
                (0.48, 0.46),
                (0.76, 0.72),
                (0.52, 0.97),
                (0.24, 0.76),
                (0.5, 0.46),
                (0.76, 0.2),
                (0.66, 0.08),
            ),
        ),
        (_ring(0.52, 0.24, 0.19, 0.2, 90.0), _ring(0.48, 0.7, 0.31, 0.27)),
    ),
    (  # 9: straight stem, curved stem, hooked
        (_ring(0.48, 0.28, 0.26, 0.24, 0.0), _line((0.74, 0.26), (0.68, 0.97))),
        (_curve((0.74, 0.2), (0.5, 0.04), (0.24, 0.26), (0.44, 0.5), (0.74, 0.3), (0.76, 0.6), (0.56, 0.97)),),
        (_ring(0.5, 0.28, 0.25, 0.24, -20.0), _curve((0.74, 0.24), (0.78, 0.6), (0.62, 0.93), (0.28, 0.9))),
    ),
)

# Letters and marks that no reader takes for a digit (no O, I, l, S, Z, B, G, b, g, q, z).
LETTER_SKELETONS: tuple[Skeleton, ...] = (
    (_line((0.15, 0.97), (0.5, 0.03), (0.85, 0.97)), _line((0.28, 0.62), (0.72, 0.62))),  # A
    (_line((0.8, 0.05), (0.25, 0.05), (0.25, 0.95), (0.8, 0.95)), _line((0.25, 0.5), (0.7, 0.5))),  # E
    (_line((0.8, 0.05), (0.25, 0.05), (0.25, 0.97)), _line((0.25, 0.48), (0.7, 0.48))),  # F
    (_line((0.2, 0.03), (0.2, 0.97)), _line((0.8, 0.03), (0.8, 0.97)), _line((0.2, 0.5), (0.8, 0.5))),  # H
    (_line((0.22, 0.03), (0.22, 0.97)), _line((0.78, 0.05), (0.22, 0.55), (0.8, 0.97))),  # K
    (_line((0.12, 0.97), (0.2, 0.03), (0.5, 0.6), (0.8, 0.03), (0.88, 0.97)),),  # M
    (_line((0.2, 0.97), (0.2, 0.03), (0.8, 0.97), (0.8, 0.03)),),  # N
    (_line((0.22, 0.97), (0.22, 0.05)), _curve((0.22, 0.05), (0.7, 0.08), (0.72, 0.42), (0.22, 0.5)),
     _line((0.4, 0.5), (0.8, 0.97))),  # R
    (_line((0.1, 0.05), (0.9, 0.05)), _line((0.5, 0.05), (0.5, 0.97))),  # T
    (_line((0.08, 0.03), (0.3, 0.97), (0.5, 0.35), (0.7, 0.97), (0.92, 0.03)),),  # W
    (_line((0.15, 0.03), (0.85, 0.97)), _line((0.85, 0.03), (0.15, 0.97))),  # X
    (_curve((0.2, 0.04), (0.22, 0.6), (0.5, 0.96), (0.78, 0.6), (0.8, 0.04)),),  # U
    (_line((0.5, 0.1), (0.5, 0.9)), _line((0.1, 0.5), (0.9, 0.5))),  # plus
    (_line((0.1, 0.5), (0.35, 0.8), (0.9, 0.15)),),  # tick
    (_line((0.1, 0.4), (0.9, 0.4)), _line((0.1, 0.65), (0.9, 0.65))),  # equals
    (_line((0.3, 0.1), (0.2, 0.9)), _line((0.7, 0.1), (0.6, 0.9)), _line((0.08, 0.35), (0.92, 0.35)),
     _line((0.04, 0.66), (0.88, 0.66))),  # hash
    (_ring(0.5, 0.5, 0.42, 0.42), _curve((0.3, 0.62), (0.5, 0.76), (0.7, 0.62)), _line((0.35, 0.32), (0.35, 0.42)),
     _line((0.65, 0.32), (0.65, 0.42))),  # smiling face
    (_line((0.5, 0.05), (0.9, 0.9), (0.1, 0.9), (0.5, 0.05)),),  # triangle
    (_curve((0.5, 0.3), (0.2, 0.05), (0.06, 0.4), (0.5, 0.92), (0.94, 0.4), (0.8, 0.05), (0.5, 0.3)),),  # heart
    (_line((0.5, 0.03), (0.65, 0.97), (0.05, 0.37), (0.95, 0.37), (0.35, 0.97), (0.5, 0.03)),),  # star
)  # fmt: skip


def _spline(points: npt.NDArray[np.float64], steps: int = 6) -> npt.NDArray[np.float64]:
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    a, b, c, d = (padded[k : len(padded) - 3 + k, None] for k in range(4))
    t = t[None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


@dataclass(frozen=True)
class Hand:
    """A way of writing. slant: x per y; width: of the glyph, 1 = as designed; pen: in pixels of 28; wander: how far
    points stray, as a share of the glyph; style: which of a digit's skeletons this hand prefers."""

    slant: float
    width: float
    pen: float
    wander: float
    style: int


def draw_hand(rng: np.random.Generator) -> Hand:
    """A new hand."""
    return Hand(
        slant=float(rng.normal(0.0, 0.14)),
        width=float(rng.uniform(0.75, 1.1)),
        pen=float(rng.uniform(1.4, 3.3)),
        wander=float(rng.uniform(0.008, 0.03)),
        style=int(rng.integers(12)),
    )


def render(skeleton: Skeleton, hand: Hand, rng: np.random.Generator, size: int = 28) -> ByteArray:
    """One drawing of a skeleton: uint8 `[size, size]`, 0 paper, 255 ink.

    The points wander, the glyph is slanted, stretched, bent, turned and shifted a little, the pen presses unevenly.
    It fills about 20 of 28 pixels, as MNIST's digits do.
    """
    turn, slant = np.deg2rad(rng.normal(0.0, 4.0)), hand.slant + rng.normal(0.0, 0.04)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.diag([hand.width * rng.uniform(0.93, 1.07), 1.0])
    matrix = spin @ np.array([[1.0, -slant], [0.0, 1.0]]) @ stretch
    bend_phase, bend = rng.uniform(0, 6.28, 2), rng.normal(0.0, 0.018, 2)
    pen = hand.pen * rng.uniform(0.9, 1.1) / 28.0
    starts, ends, widths = [], [], []
    for curved, points in skeleton:
        array = np.asarray(points) + rng.normal(0.0, hand.wander, (len(points), 2))
        line = _spline(array) if curved and len(array) > 2 else array
        line = line + bend * np.sin(2 * np.pi * line[:, ::-1] + bend_phase)
        line = (line - 0.5) @ matrix.T
        starts.append(line[:-1])
        ends.append(line[1:])
        widths.append(pen * (1.0 + rng.normal(0.0, 0.1) + np.linspace(-0.12, 0.12, len(line) - 1) * rng.normal()))
    a, b = np.concatenate(starts), np.concatenate(ends)
    low, high = np.minimum(a, b).min(axis=0), np.maximum(a, b).max(axis=0)
    scale = rng.uniform(18.5, 20.5) / 28.0 / max(high - low)
    shift = -(low + high) / 2.0 + rng.normal(0.0, 0.012, 2) / scale
    a, b = (a + shift) * scale, (b + shift) * scale
    width = np.concatenate(widths)[:, None]
    axis = (np.arange(size) + 0.5) / size - 0.5
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, -1, 2)
    along = (b - a)[:, None]
    length = np.maximum(np.square(along).sum(axis=-1), 1e-9)
    t = np.clip(((grid - a[:, None]) * along).sum(axis=-1) / length, 0.0, 1.0)
    distance = np.sqrt(np.square(grid - a[:, None] - t[..., None] * along).sum(axis=-1))
    soft = rng.uniform(0.8, 1.4)
    ink = np.clip(0.5 + (width / 2.0 - distance) * size / soft, 0.0, 1.0).max(axis=0)
    return np.asarray(np.rint(255.0 * ink.reshape(size, size)), np.uint8)


def render_digit(digit: int, hand: Hand, rng: np.random.Generator) -> ByteArray:
    """One drawing of a digit: uint8 `[28, 28]`, 255 ink. Four times in five in the hand's own style."""
    styles = DIGIT_SKELETONS[digit]
    style = hand.style if rng.random() < 0.8 else int(rng.integers(len(styles)))
    return render(styles[style % len(styles)], hand, rng)


@lru_cache(maxsize=1)
def letter_glyphs() -> FloatArray:
    """240 drawn letters and marks, float32 `[240, 28, 28]`, 0 paper, 1 ink; the same in every process."""
    rng = np.random.default_rng(1_040)
    drawn = [render(LETTER_SKELETONS[i % len(LETTER_SKELETONS)], draw_hand(rng), rng) for i in range(240)]
    return np.asarray(np.stack(drawn) / 255.0, np.float32)


def scribble(rng: np.random.Generator) -> FloatArray:
    """A random pen line that means nothing: float32 `[28, 28]`, 0 paper, 1 ink."""
    points = tuple((float(x), float(y)) for x, y in rng.uniform(0.05, 0.95, (int(rng.integers(6, 11)), 2)))
    return np.asarray(render(((True, points),), draw_hand(rng), rng) / 255.0, np.float32)
