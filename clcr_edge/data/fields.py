"""Precomputed noise, textures and interpolation matrices: made once per process, then only sliced.

Drawing Gaussian noise costs fifty times more than adding it. A stream therefore takes slices of fixed fields at random
places; all fields come from fixed seeds, so that a stream depends on its own seed alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from clcr_edge.packets import FloatArray

NOISE = 1 << 20
SOUND = 1 << 20


@lru_cache(maxsize=1)
def white_field() -> FloatArray:
    """Unit Gaussian noise, float32 `[2^20]`, flat; slice it anywhere."""
    return np.random.default_rng(1_001).standard_normal(NOISE, np.float32)


@lru_cache(maxsize=1)
def soft_field() -> FloatArray:
    """Spatially soft unit noise in rows of 96 (what a camera's denoiser leaves), float32 `[2^20]`, flat."""
    rows = NOISE // 96
    noise = np.random.default_rng(1_002).standard_normal((rows, 96), np.float32)
    for axis in (0, 1):
        noise = noise + 0.7 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    flat = np.zeros(NOISE, np.float32)
    flat[: rows * 96] = (noise / noise.std()).ravel()
    return flat


@lru_cache(maxsize=1)
def textures() -> FloatArray:
    """Cloudy 1/f^a textures of several a, mean 0, about -1..1: float32 `[16, 256, 256]`."""
    rng = np.random.default_rng(1_003)
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]
    out = np.empty((16, 256, 256), np.float32)
    for i in range(16):
        stretch = 2.0 ** rng.uniform(-1.5, 1.5)
        radius = np.sqrt((fy * stretch) ** 2 + (fx / stretch) ** 2)
        radius[0, 0] = 1.0
        spectrum = np.fft.rfft2(rng.standard_normal((256, 256))) * radius ** -rng.uniform(0.6, 2.0)
        spectrum[0, 0] = 0.0
        field = np.fft.irfft2(spectrum, (256, 256))
        out[i] = np.clip(field / (2.5 * field.std()), -1.0, 1.0)
    return out


@lru_cache(maxsize=256)
def blur_matrix(size: int, sigma_tenths: int) -> FloatArray:
    """`[size, size]` Gaussian blur along one axis, edges replicated; sigma in tenths of a pixel (so that it caches)."""
    sigma = max(sigma_tenths, 1) / 10.0
    reach = int(3 * sigma) + 1
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    weight /= weight.sum()
    matrix = np.zeros((size, size))
    for o, w in zip(offset, weight, strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + o, 0, size - 1)), w)
    return matrix.astype(np.float32)


def blur(image: FloatArray, sigma_y: float, sigma_x: float) -> FloatArray:
    """Separable Gaussian blur of float32 `[H, W]`; sigma in pixels, rounded to tenths; below 0.15 nothing happens."""
    if sigma_y >= 0.15:
        image = blur_matrix(image.shape[0], round(sigma_y * 10)) @ image
    if sigma_x >= 0.15:
        image = image @ blur_matrix(image.shape[1], round(sigma_x * 10)).T
    return image


@lru_cache(maxsize=64)
def enlarge_matrix(n_in: int, n_out: int) -> FloatArray:
    """`[n_out, n_in]` cubic (Catmull-Rom) interpolation between pixel centres, edges replicated."""
    centre = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    first = np.floor(centre).astype(int) - 1
    matrix = np.zeros((n_out, n_in))
    for k in range(4):
        x = np.abs(centre - (first + k))
        near = 1.0 - 2.5 * x**2 + 1.5 * x**3
        far = 2.0 - 4.0 * x + 2.5 * x**2 - 0.5 * x**3
        np.add.at(matrix, (np.arange(n_out), np.clip(first + k, 0, n_in - 1)), np.where(x <= 1.0, near, far))
    return matrix.astype(np.float32)


def _coloured(rng: np.random.Generator, slope: float) -> FloatArray:
    """Unit-RMS noise whose power falls as f^-slope above 40 Hz, float32 `[SOUND]`, 16 kHz."""
    frequency = np.fft.rfftfreq(SOUND, 1.0 / 16_000)
    spectrum = np.fft.rfft(rng.standard_normal(SOUND))
    spectrum *= np.maximum(frequency, 40.0) ** (-slope / 2.0)
    spectrum[frequency < 20.0] = 0.0
    noise = np.fft.irfft(spectrum, SOUND)
    return np.asarray(noise / noise.std(), np.float32)


@lru_cache(maxsize=8)
def sound_noise(kind: str) -> FloatArray:
    """A minute of unit-RMS room noise at 16 kHz: `white`, `pink`, `brown`, `hum` (mains and fans) or `bursts`."""
    if kind in ("white", "pink", "brown"):
        slope = {"white": 0.0, "pink": 1.0, "brown": 2.0}[kind]
        return _coloured(np.random.default_rng(1_010 + int(slope)), slope)
    rng = np.random.default_rng(1_020 if kind == "hum" else 1_021)
    t = np.arange(SOUND) / 16_000.0
    if kind == "hum":
        noise = 0.4 * _coloured(rng, 1.5).astype(float)
        for base in (50.0, 60.0, 118.0, 173.0):
            for k in range(1, 9):
                # A quarter of the minute each, so that a slice is one machine and not all of them.
                part = slice(*(np.array([0, 1]) * SOUND // 4 + SOUND // 4 * (50.0, 60.0, 118.0, 173.0).index(base)))
                noise[part] += rng.uniform(0.1, 1.0) / k * np.sin(2 * np.pi * (base * k * t[part] + rng.uniform()))
    else:
        noise = 0.1 * _coloured(rng, 1.0).astype(float)
        for start in np.sort(rng.integers(0, SOUND - 8_000, 160)):
            length = int(rng.integers(400, 8_000))
            decay = np.exp(-np.arange(length) / rng.uniform(60, length / 3))
            ring = np.sin(2 * np.pi * rng.uniform(80, 3_000) * t[:length]) * rng.uniform(0, 2)
            noise[start : start + length] += rng.uniform(1, 6) * decay * (rng.standard_normal(length) + ring)
    return np.asarray(noise / noise.std(), np.float32)


@lru_cache(maxsize=1)
def room_responses() -> FloatArray:
    """Impulse responses of small rooms: float32 `[24, 3200]` (0.2 s at 16 kHz), direct sound 1, growing reverberation."""
    rng = np.random.default_rng(1_030)
    t = np.arange(3_200) / 16_000.0
    out = np.zeros((24, 3_200), np.float32)
    for i in range(24):
        tail = rng.standard_normal(3_200) * 10 ** (-3.0 * t / rng.uniform(0.08, 0.45))
        tail[: int(rng.integers(16, 120))] = 0.0
        tail *= 10 ** (-rng.uniform(2.0, 14.0) / 20.0) / np.sqrt(np.square(tail).sum())
        out[i] = tail
        out[i, 0] = 1.0
    return out
