"""Drawn rooms: layer upon layer of surfaces, from large and far to small and near, each with a grey and a texture of its own.

Overlapping shapes of all sizes ("dead leaves") have the statistics of real pictures, as far as drawings can.
"""

from __future__ import annotations

import numpy as np

from clcr_edge.data.fields import blur, enlarge_matrix, textures
from clcr_edge.data.glyphs import letter_glyphs
from clcr_edge.packets import FloatArray

CANVAS = 144  # larger than a frame: room for the camera to pan
_AXIS = np.arange(CANVAS, dtype=np.float32)
_RAMP = np.linspace(-1, 1, CANVAS, dtype=np.float32)
_Box = tuple[slice, slice]


def _surface(h: int, w: int, grey: float, rng: np.random.Generator) -> FloatArray:
    """A patch with some texture and some light from one side, float32 `[h, w]`."""
    y, x = rng.integers(0, 256 - h), rng.integers(0, 256 - w)
    patch = textures()[rng.integers(len(textures())), y : y + h, x : x + w] * np.float32(30.0 * rng.random() ** 2)
    patch += np.float32(grey)
    if rng.random() < 0.5:
        patch += _RAMP[:w] * np.float32(rng.normal(0.0, 25.0))
    return np.asarray(patch, np.float32)


def _ellipse(box: _Box, y: float, x: float, h: float, w: float, soft: float) -> FloatArray:
    inside = ((_AXIS[box[0], None] - np.float32(y)) / np.float32(h)) ** 2
    inside = inside + ((_AXIS[None, box[1]] - np.float32(x)) / np.float32(w)) ** 2
    return np.asarray(np.clip((1.0 - inside) * np.float32(min(h, w) / soft), 0.0, 1.0), np.float32)


def _line(rng: np.random.Generator) -> FloatArray:
    y, x = rng.uniform(0, CANVAS, 2)
    angle, width = rng.uniform(0, np.pi), rng.uniform(0.6, 3.5)
    far = (_AXIS[:, None] - np.float32(y)) * np.float32(np.cos(angle))
    far = np.abs(far + (_AXIS[None, :] - np.float32(x)) * np.float32(np.sin(angle)))
    return np.asarray(np.clip(np.float32(width) - far, 0.0, 1.0), np.float32)


def _letter(canvas: FloatArray, grey: float, rng: np.random.Generator) -> None:
    """A letter or a mark somewhere on the wall: print that is no digit."""
    side = int(rng.integers(12, 60))
    y, x = int(rng.integers(-side // 2, CANVAS - side // 2)), int(rng.integers(-side // 2, CANVAS - side // 2))
    grow = enlarge_matrix(28, side)
    mark = np.clip(grow @ letter_glyphs()[rng.integers(len(letter_glyphs()))] @ grow.T, 0.0, 1.0)
    box = slice(max(y, 0), min(y + side, CANVAS)), slice(max(x, 0), min(x + side, CANVAS))
    mark = mark[box[0].start - y : box[0].stop - y, box[1].start - x : box[1].stop - x]
    canvas[box] += mark * (np.float32(grey) - canvas[box])


def make_background(rng: np.random.Generator, blur_px: float) -> FloatArray:
    """A drawn room: float32 `[144, 144]`, 0..255. blur_px: the most defocus."""
    base = float(rng.uniform(30, 225))
    canvas = _surface(CANVAS, CANVAS, base, rng) + _RAMP[:, None] * np.float32(rng.normal(0, 25))
    if rng.random() < 0.4:  # foliage, folds of cloth: two surfaces divided along the contours of a texture
        y, x = rng.integers(0, 256 - CANVAS, 2)
        contour = textures()[rng.integers(len(textures())), y : y + CANVAS, x : x + CANVAS] - np.float32(rng.normal(0, 0.3))
        mask = np.clip(contour * np.float32(rng.uniform(2, 30)) + 0.5, 0.0, 1.0)
        canvas += mask * (_surface(CANVAS, CANVAS, float(rng.uniform(20, 235)), rng) - canvas)
    spread = float(rng.uniform(20, 120))
    # Small things outnumber large ones, and lie in front of them.
    sizes = np.sort(6.0 * 20.0 ** (rng.random(int(20 * rng.random() ** 1.5)) ** 1.5))[::-1]
    for size in sizes.tolist():
        kind = rng.random()
        grey = float(np.clip(base + rng.normal(0.0, spread), 0, 255))
        h, w = max(3, int(size * rng.uniform(0.4, 1.0))), max(3, int(size * rng.uniform(0.4, 1.0)))
        y, x = int(rng.integers(-h // 2, CANVAS - h // 2)), int(rng.integers(-w // 2, CANVAS - w // 2))
        box = slice(max(y, 0), min(y + h, CANVAS)), slice(max(x, 0), min(x + w, CANVAS))
        if kind < 0.35:
            part = canvas[box]
            part += np.float32(rng.uniform(0.4, 1.0)) * (_surface(part.shape[0], part.shape[1], grey, rng) - part)
        elif kind < 0.7:
            part = canvas[box]
            mask = _ellipse(box, y + h / 2, x + w / 2, h / 2, w / 2, float(rng.uniform(0.8, 6.0)))
            part += mask * (_surface(part.shape[0], part.shape[1], grey, rng) - part)
        elif kind < 0.87:
            canvas += _line(rng) * (np.float32(grey) - canvas)
        else:
            _letter(canvas, grey, rng)
    sigma = float(rng.uniform(0.0, 0.4 + blur_px))
    return np.clip(blur(canvas, sigma, sigma), 0.0, 255.0)
