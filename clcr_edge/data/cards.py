"""Things that are held up to the camera: a sheet with a glyph on it, or a drawn face, as a texture with soft edges.

A texture is 256 x 256 texels and repeats; the glyph's 28 x 28 cell lies in its middle. It is blurred for the size at
which it will be seen, so that the nearest texel is a good enough sample (`scene.paint`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clcr_edge.data.fields import blur, enlarge_matrix, textures
from clcr_edge.packets import FloatArray

SIDE = 256
_AXIS = (np.arange(SIDE) - (SIDE - 1) / 2).astype(np.float32)
_REACH = 80.0  # no sheet is larger than this (texels from the middle), or a turned one would show its own repetition


@dataclass(frozen=True)
class Card:
    """A texture. paint: opacity x grey value 0..255, flat float32 `[SIDE * SIDE]`; keep: 1 - opacity, alike.

    cell: texels across the glyph's cell. reach_x, reach_y: half of the visible part, in texels; None fills the frame.
    """

    paint: FloatArray
    keep: FloatArray
    cell: int
    reach_x: float | None
    reach_y: float | None


def bend(glyph: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A glyph in another hand, float32 `[28, 28]` -> the same: narrower or wider, lower or higher, slanted, distorted."""
    grow = enlarge_matrix(5, 28)
    shift = rng.normal(0.0, rng.uniform(0.3, 1.2), (2, 5, 5)).astype(np.float32)
    down, across = np.exp(rng.normal(0.0, 0.1, 2))
    slant = np.clip(rng.normal(0.0, 0.15), -0.3, 0.3)
    axis = np.arange(28, dtype=np.float32) - 13.5
    y = 13.5 + axis[:, None] * down + grow @ shift[0] @ grow.T
    x = 13.5 + axis[None, :] * across + axis[:, None] * slant + grow @ shift[1] @ grow.T
    y, x = np.clip(y, 0, 26.999), np.clip(x, 0, 26.999)
    y0, x0 = y.astype(np.intp), x.astype(np.intp)
    fy, fx = y - y0, x - x0
    flat, at = glyph.ravel(), y0 * 28 + x0
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    low = flat[at + 28] * (1 - fx) + flat[at + 29] * fx
    return np.asarray(top * (1 - fy) + low * fy, np.float32)


def _edge(reach: float, soft: float) -> FloatArray:
    return np.clip((reach - np.abs(_AXIS)) / max(soft, 0.5) + 0.5, 0.0, 1.0)


def _fingers(value: FloatArray, opacity: FloatArray, reach_x: float, reach_y: float, rng: np.random.Generator) -> None:
    """One or two finger tips that hold the sheet at its lower edge or side."""
    skin = rng.uniform(60, 200)
    for _ in range(int(rng.integers(1, 3))):
        ry, rx = rng.uniform(9, 16), rng.uniform(7, 11)
        if rng.random() < 0.6:
            cy, cx = reach_y, rng.uniform(-reach_x, reach_x)
        else:
            cy, cx, ry, rx = rng.uniform(0, reach_y), reach_x * rng.choice([-1, 1]), rx, ry
        y0, x0 = int(127.5 + cy - ry) - 1, int(127.5 + cx - rx) - 1
        box = slice(max(y0, 0), y0 + int(2 * ry) + 4), slice(max(x0, 0), x0 + int(2 * rx) + 4)
        inside = ((_AXIS[box[0], None] - cy) / ry) ** 2 + ((_AXIS[None, box[1]] - cx) / rx) ** 2
        tip = np.clip((1.0 - inside) * 3.0, 0.0, 1.0)
        opacity[box] = np.maximum(opacity[box], tip)
        value[box] += tip * (skin * (1.0 - 0.25 * inside.clip(0, 1)) - value[box])


def make_card(
    glyph: FloatArray | None, size_px: float, blur_px: tuple[float, float], rng: np.random.Generator, plain: bool
) -> Card:
    """A sheet with a glyph (`[28, 28]`, 0 paper, 1 ink; None leaves it blank).

    size_px: pixels across the glyph's cell on the screen (a digit fills 20/28 of it). blur_px: defocus down and
    across, in screen pixels. Drawn at random: a card, a card with a border, a sheet that fills the frame or, unless
    `plain`, ink straight on the background; dark on light four times in five.
    """
    way = rng.random()
    kind = 3 if way < 0.05 and not plain else 2 if way > 0.8 and size_px >= 45 else 1 if way > 0.65 else 0
    ratio_x, ratio_y = rng.uniform(0.8, 1.7, 2)
    # As many texels as the sheet's size allows; a sheet that fills the frame must not show its repetition.
    if kind == 2:
        cell = 168 if size_px >= 70 else 112
    elif size_px >= 70:
        cell, ratio_x, ratio_y = 128, min(ratio_x, 1.2), min(ratio_y, 1.2)
    else:
        cell = 112 if max(ratio_x, ratio_y) < 1.4 else 80
    texels = cell / size_px
    soft = tuple(max(b, 0.45) * texels for b in blur_px)
    if rng.random() < 0.8:
        paper = rng.uniform(130, 250)
        pen = rng.uniform(5, paper - 70)
    else:
        paper = rng.uniform(5, 120)
        pen = rng.uniform(paper + 70, 255)

    ink = None
    pad = 20
    span = slice((SIDE - cell) // 2 - pad, (SIDE + cell) // 2 + pad)
    if glyph is not None:
        grow = enlarge_matrix(28, cell)
        large = grow @ glyph @ grow.T
        # A harder edge than MNIST's grey one, and a threshold that makes the pen thicker or thinner.
        large = np.clip((large - rng.uniform(0.28, 0.58)) * rng.uniform(2.0, 5.0) + 0.5, 0.0, 1.0)
        ink = np.zeros((cell + 2 * pad, cell + 2 * pad), np.float32)
        ink[pad:-pad, pad:-pad] = large
        ink = blur(ink, *soft)

    if kind == 3:
        # Nobody knows what it will be written on: at least the pen is a strong one.
        pen = rng.uniform(0, 25) if pen < paper else rng.uniform(230, 255)
        opacity = np.zeros((SIDE, SIDE), np.float32)
        value = np.full((SIDE, SIDE), pen, np.float32)
        if ink is not None:
            opacity[span, span] = ink
        return _packed(value, opacity, cell, cell / 2 + 8, cell / 2 + 8)

    shade = textures()[rng.integers(16)] * np.float32(rng.uniform(0, 14))
    value = shade + (paper + rng.uniform(-0.1, 0.1) * _AXIS)[None, :]
    value += (rng.uniform(-0.1, 0.1) * _AXIS)[:, None]
    if rng.random() < 0.12:  # ruled or squared paper
        step, dark = int(rng.integers(9, 20)), np.float32(rng.uniform(10, 40)) * (1 if paper < 125 else -1)
        value[:: 2 * step] += dark
        value[1 :: 2 * step] += dark
        if rng.random() < 0.5:
            value[:, :: 2 * step] += dark
            value[:, 1 :: 2 * step] += dark
    if ink is not None:
        value[span, span] += ink * np.float32(pen - paper)
    if kind == 2:
        np.clip(value, 0.0, 255.0, out=value)
        return Card(value.ravel(), np.zeros(SIDE * SIDE, np.float32), cell, None, None)
    reach_x, reach_y = min(ratio_x * cell / 2, _REACH), min(ratio_y * cell / 2, _REACH)
    opacity = _edge(reach_y, soft[0])[:, None] * _edge(reach_x, soft[1])[None, :]
    if kind == 1:
        inset, line = rng.uniform(1, 3) * texels, rng.uniform(1.0, 2.2) * texels
        ring = _edge(reach_y - inset, soft[0])[:, None] * _edge(reach_x - inset, soft[1])[None, :]
        ring -= _edge(reach_y - inset - line, soft[0])[:, None] * _edge(reach_x - inset - line, soft[1])[None, :]
        value += ring * np.float32(pen - paper)
    if rng.random() < 0.4:
        _fingers(value, opacity, reach_x, reach_y, rng)
        reach_x, reach_y = reach_x + 16, reach_y + 16
    return _packed(value, opacity, cell, reach_x + soft[1], reach_y + soft[0])


def make_face(size_px: float, blur_px: tuple[float, float], rng: np.random.Generator, body: bool) -> Card:
    """A drawn face, with shoulders below where `body` is asked for: somebody who sits there, and is no digit."""
    cell = 112
    soft = max(*blur_px, 0.4) * cell / size_px
    skin, dark = rng.uniform(60, 225), rng.uniform(5, 70)
    ry, rx = rng.uniform(58, 74), rng.uniform(42, 56)
    opacity = np.zeros((SIDE, SIDE), np.float32)
    value = np.full((SIDE, SIDE), rng.uniform(10, 240), np.float32)

    def ellipse(cy: float, cx: float, h: float, w: float, fuzzy: float = 1.0) -> tuple[tuple[slice, slice], FloatArray]:
        """Where it lies and its mask there."""
        edge = soft * fuzzy
        rows = slice(max(int(127 + cy - h - edge), 0), max(int(129 + cy + h + edge), 1))
        columns = slice(max(int(127 + cx - w - edge), 0), max(int(129 + cx + w + edge), 1))
        y = (_AXIS[rows, None] - np.float32(cy)) / np.float32(h)
        x = (_AXIS[None, columns] - np.float32(cx)) / np.float32(w)
        inside = np.sqrt(y * y + x * x)
        mask = np.clip((1.0 - inside) * np.float32(min(h, w) / edge) + 0.5, 0.0, 1.0)
        return (rows, columns), np.asarray(mask, np.float32)

    if body:
        for box, mask in (
            ellipse(150, 0, rng.uniform(68, 84), rng.uniform(90, 118)),
            ellipse(80, 0, 45, rx * 0.55),
        ):
            np.maximum(opacity[box], mask, out=opacity[box])
        value += textures()[rng.integers(len(textures()))] * np.float32(rng.uniform(0, 40))
    head, head_mask = ellipse(0, 0, ry, rx)
    np.maximum(opacity[head], head_mask, out=opacity[head])
    # Light from one side makes a ball of the head.
    x = _AXIS[None, head[1]]
    light = skin + np.float32(rng.uniform(-0.8, 0.8)) * x - np.float32(rng.uniform(0, 25)) * (x / np.float32(rx)) ** 2
    light = light + np.float32(rng.uniform(-0.3, 0.3)) * _AXIS[head[0], None]
    value[head] += head_mask * (light - value[head])
    eye_y, eye_x, eye = rng.uniform(-22, -8), rng.uniform(14, 22), rng.uniform(3.5, 8)
    hair_y = -ry * rng.uniform(0.7, 1.1)
    hair_box, hair = ellipse(hair_y, rng.uniform(-12, 12), ry * 0.6, rx * 1.3, rng.uniform(1, 4))
    within = np.zeros((SIDE, SIDE), np.float32)
    within[head] = head_mask
    parts = [((hair_box, hair * within[hair_box]), dark + rng.uniform(0, 80))]
    parts += [(ellipse(eye_y - 4, sign * eye_x, eye * 1.2, eye * 1.8, 4.0), skin * 0.75) for sign in (-1, 1)]
    parts += [(ellipse(eye_y, sign * eye_x, eye * 0.7, eye), dark) for sign in (-1, 1)]
    parts.append((ellipse(rng.uniform(28, 40), 0.0, rng.uniform(2, 10), rng.uniform(10, 24)), dark))
    parts.append((ellipse(8, rng.uniform(-3, 3), 10, 3.5, 3.0), skin * 0.8))
    for (box, mask), grey in parts:
        value[box] += mask * (np.float32(grey) - value[box])
    return _packed(value, opacity, cell, (118.0 if body else rx) + soft, (126.0 if body else ry) + soft)


def _packed(value: FloatArray, opacity: FloatArray, cell: int, reach_x: float, reach_y: float) -> Card:
    paint = np.clip(value, 0.0, 255.0) * opacity
    return Card(paint.ravel(), (1.0 - opacity).ravel(), cell, reach_x, reach_y)
