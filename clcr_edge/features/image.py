"""A camera frame of any size -> the square image that a network reads: luma for the student, colour for the teacher."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from clcr_edge.packets import ByteArray, FloatArray


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


def luma_square(image: ByteArray, size: int) -> FloatArray:
    """Centre square of an RGB frame, as luma, area-averaged.

    image: uint8 `[H, W, 3]` RGB (or `[H, W]` luma). Returns float32 `[1, size, size]` in 0..1.
    Numpy alone, so that a bundle runs where OpenCV does not, and a file and a camera give the same pixels.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[top : top + side, left : left + side]
    if crop.ndim == 3:
        # BT.601 in 16-bit integers: a third of the time of a float product over the whole frame.
        wide = crop.astype(np.uint16)
        luma = ((wide[..., 0] * 77 + wide[..., 1] * 150 + wide[..., 2] * 29) >> 8).astype(np.float32)
    else:
        luma = crop.astype(np.float32)
    matrix = _area_matrix(side, size)
    out: FloatArray = np.asarray(matrix @ luma @ matrix.T, np.float32)
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
