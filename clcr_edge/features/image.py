"""A camera frame of any size -> the square image that a network reads: luma for the student, colour for the teacher."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from clcr_edge.packets import ByteArray, FloatArray

_BLOCKS_DOWN, _BLOCKS_ACROSS = 16, 4


@lru_cache(maxsize=16)
def _area_matrix(n_in: int, n_out: int) -> FloatArray:
    """`[n_out, n_in]` weights of exact area averaging; where the image is enlarged, of linear interpolation."""
    scale = n_in / n_out
    if scale >= 1.0:
        left = np.arange(n_out)[:, None] * scale
        pixel = np.arange(n_in)[None, :]
        weight = np.clip(np.minimum(left + scale, pixel + 1) - np.maximum(left, pixel), 0.0, 1.0)
    else:
        centre = np.clip((np.arange(n_out)[:, None] + 0.5) * scale - 0.5, 0, n_in - 1)
        weight = np.clip(1.0 - np.abs(centre - np.arange(n_in)[None, :]), 0.0, 1.0)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float32)


class _Band(NamedTuple):
    """Outputs [first, last) read inputs [start, stop), by weights float32 `[last - first, stop - start]`."""

    first: int
    last: int
    start: int
    stop: int
    weights: FloatArray


@lru_cache(maxsize=32)
def _bands(n_in: int, n_out: int, count: int) -> tuple[_Band, ...]:
    """`_area_matrix` in `count` bands, without the zeros that it mostly consists of."""
    matrix, bands = _area_matrix(n_in, n_out), []
    edges = np.linspace(0, n_out, min(count, n_out) + 1).astype(int).tolist()
    for first, last in pairwise(edges):
        read = np.flatnonzero(matrix[first:last].any(axis=0))
        start, stop = int(read[0]), int(read[-1]) + 1
        bands.append(_Band(first, last, start, stop, np.ascontiguousarray(matrix[first:last, start:stop])))
    return tuple(bands)


def luma(image: ByteArray) -> ByteArray:
    """uint8 `[H, W, 3]` RGB -> uint8 `[H, W]`, BT.601 in integers, to nearest: what is recorded is what the network saw.

    The integers are OpenCV's own, whose code is five times as fast where a camera has loaded it.
    """
    return (_opencv_gray() or _weighed)(image)


def _weighed(image: ByteArray) -> ByteArray:
    # The type by name: numpy 1 would take the number for one of the image's type, and the product too.
    weighed = np.multiply(image[..., 0], 9_798, dtype=np.uint32)
    weighed += np.multiply(image[..., 1], 19_235, dtype=np.uint32)
    weighed += np.multiply(image[..., 2], 3_735, dtype=np.uint32)
    weighed += 1 << 14
    weighed >>= 15
    return weighed.astype(np.uint8)


def _opencv_gray() -> Callable[[ByteArray], ByteArray] | None:
    """OpenCV's luma, if OpenCV is loaded already and computes ours to the bit. A bundle runs without it and never loads it."""
    module = sys.modules.get("cv2")
    return _checked_gray(module) if hasattr(module, "cvtColor") else None  # another thread may be loading it just now


@lru_cache(maxsize=1)
def _checked_gray(cv2: Any) -> Callable[[ByteArray], ByteArray] | None:
    code = cv2.COLOR_RGB2GRAY

    def convert(image: ByteArray) -> ByteArray:
        # Mirrored and BGR-turned views are not laid out as OpenCV wants its pictures.
        plain = image.strides[2] == 1 and image.strides[1] == 3 and image.strides[0] >= 3 * image.shape[1]
        return np.asarray(cv2.cvtColor(image if plain else np.ascontiguousarray(image), code))

    levels = np.arange(256, dtype=np.uint8)
    probe = np.stack([levels[:, None].repeat(256, 1), levels[None].repeat(256, 0), levels[:, None] ^ levels[None]], axis=2)
    return convert if np.array_equal(convert(probe), _weighed(probe)) else None


def luma_square(image: ByteArray, size: int) -> FloatArray:
    """Centre square of an RGB frame, as luma, area-averaged.

    image: uint8 `[H, W, 3]` RGB (or `[H, W]` luma). Returns float32 `[1, size, size]` in 0..1; the same bits for a frame and
    for its `luma`, with OpenCV and without, so that a file and a camera give the same pixels.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side]
    low = np.empty((size, side), np.float32)
    # Downwards first: it leaves a fifth of the numbers for the other way. In blocks, so that what is made on the way stays in
    # the cache and the weights are mostly not zero.
    for first, last, start, stop, weights in _bands(side, size, _BLOCKS_DOWN):
        rows = crop[start:stop]
        low[first:last] = weights @ (luma(rows) if rows.ndim == 3 else rows).astype(np.float32)
    out = np.empty((size, size), np.float32)
    for first, last, start, stop, weights in _bands(side, size, _BLOCKS_ACROSS):
        out[:, first:last] = low[:, start:stop] @ weights.T
    out *= np.float32(1.0 / 255.0)
    return out[None]


def rgb_square(image: ByteArray, size: int) -> ByteArray:
    """Centre square of an RGB frame in colour, area-averaged.

    image: uint8 `[H, W, 3]`. Returns uint8 `[size, size, 3]`, rounded to nearest.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side].astype(np.float32)
    matrix = _area_matrix(side, size)
    rows = (matrix @ crop.reshape(side, side * 3)).reshape(size, side, 3)
    out = np.matmul(matrix, rows)
    return np.asarray(np.clip(np.rint(out), 0.0, 255.0), np.uint8)
