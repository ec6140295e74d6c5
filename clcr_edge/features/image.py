"""A camera frame of any size -> the square image that a network reads: luma for the student, colour for the teacher."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clcr_edge.packets import ByteArray, FloatArray

_BLOCKS = 4  # of rows


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


def luma(image: ByteArray) -> npt.NDArray[np.uint16]:
    """uint8 `[H, W, 3]` RGB -> uint16 `[H, W]`, BT.601 in integers: what is recorded is what the network saw."""
    # The type by name: numpy 1 would take 77 for an eight-bit number, and the product too.
    weighed = np.multiply(image[..., 0], 77, dtype=np.uint16)
    weighed += np.multiply(image[..., 1], 150, dtype=np.uint16)
    weighed += np.multiply(image[..., 2], 29, dtype=np.uint16)
    weighed >>= 8
    return weighed


def luma_square(image: ByteArray, size: int) -> FloatArray:
    """Centre square of an RGB frame, as luma, area-averaged.

    image: uint8 `[H, W, 3]` RGB (or `[H, W]` luma). Returns float32 `[1, size, size]` in 0..1; the same bits for a frame and
    for its `luma`. Numpy alone, so that a bundle runs where OpenCV does not, and a file and a camera give the same pixels.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side]
    out = np.empty((size, size), np.float32)
    across = _area_matrix(side, size).T
    # In blocks, so that what is made on the way stays in the cache.
    for first, last, start, stop, down in _bands(side, size, _BLOCKS):
        rows = crop[start:stop]
        out[first:last] = down @ ((luma(rows) if rows.ndim == 3 else rows).astype(np.float32) @ across)
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
