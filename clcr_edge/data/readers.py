"""The two file formats of the digits task, MNIST's IDX and plain WAV, read with every size checked before it is trusted."""

from __future__ import annotations

import gzip
import io
import struct
import wave
import zlib
from pathlib import Path

import numpy as np

from clcr_edge.errors import DataError
from clcr_edge.packets import ByteArray, FloatArray

RATE_HZ = 16_000
_IDX_IMAGES, _IDX_LABELS = 2_051, 2_049
_IDX_LIMIT = 512 * 1024 * 1024  # MNIST unpacks to 47 MB; a gzip bomb must not fill the memory first


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as f:
            data = f.read(_IDX_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: not a whole gzip file ({e}); fetch it again") from None
    if len(data) > _IDX_LIMIT:
        raise DataError(f"{path}: unpacks to more than {_IDX_LIMIT >> 20} MiB; that is no MNIST file")
    return data


def read_idx_images(path: Path) -> ByteArray:
    """`*-images-idx3-ubyte.gz` -> uint8 `[N, 28, 28]`, 0 paper, 255 ink. Raises `DataError` naming the file."""
    data = _unpacked(path)
    if len(data) < 16:
        raise DataError(f"{path}: {len(data)} bytes, too short for an IDX header of 16; fetch it again")
    magic, count, height, width = struct.unpack(">iiii", data[:16])
    if magic != _IDX_IMAGES:
        raise DataError(f"{path}: magic number {magic}, expected {_IDX_IMAGES} (images, IDX3 unsigned byte)")
    if (height, width) != (28, 28):
        raise DataError(f"{path}: images of {height} x {width} pixels, expected 28 x 28")
    if count < 1 or len(data) - 16 != count * 784:
        raise DataError(
            f"{path}: the header says {count} images ({count * 784} bytes), the file holds {len(data) - 16} bytes; "
            "fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, 28, 28)


def read_idx_labels(path: Path) -> ByteArray:
    """`*-labels-idx1-ubyte.gz` -> uint8 `[N]`, 0..9. Raises `DataError` naming the file."""
    data = _unpacked(path)
    if len(data) < 8:
        raise DataError(f"{path}: {len(data)} bytes, too short for an IDX header of 8; fetch it again")
    magic, count = struct.unpack(">ii", data[:8])
    if magic != _IDX_LABELS:
        raise DataError(f"{path}: magic number {magic}, expected {_IDX_LABELS} (labels, IDX1 unsigned byte)")
    if count < 1 or len(data) - 8 != count:
        raise DataError(f"{path}: the header says {count} labels, the file holds {len(data) - 8}; fetch it again")
    labels = np.frombuffer(data, np.uint8, offset=8)
    if labels.max() > 9:
        raise DataError(f"{path}: label {labels.max()} at {int(labels.argmax())}, expected 0 to 9")
    return labels


def resample(samples: FloatArray, rate_hz: int, to_hz: int = RATE_HZ) -> FloatArray:
    """Band-limited change of rate through the spectrum; float32 `[N]` -> float32 `[N * to_hz / rate_hz]`.

    For short recordings as a whole (the live path resamples as a stream). The ends are padded with silence, so that
    nothing wraps around.
    """
    if rate_hz == to_hz or not len(samples):
        return np.asarray(samples, np.float32)
    unit = np.gcd(rate_hz, to_hz)
    step_in, step_out = rate_hz // unit, to_hz // unit
    blocks = -(-(len(samples) + rate_hz // 20) // step_in)
    spectrum = np.fft.rfft(samples, blocks * step_in)
    keep = min(blocks * step_in, blocks * step_out) // 2
    out = np.zeros(blocks * step_out // 2 + 1, complex)
    out[:keep] = spectrum[:keep]
    result = np.fft.irfft(out, blocks * step_out) * (to_hz / rate_hz)
    return result[: round(len(samples) * to_hz / rate_hz)].astype(np.float32)


def trim(samples: FloatArray, rate_hz: int = RATE_HZ) -> FloatArray:
    """Cut leading and trailing near-silence (40 dB below the loudest 10 ms), leaving 20 ms of it at either end."""
    hop = rate_hz // 100
    count = len(samples) // hop
    if count < 3:
        return samples
    power = np.square(samples[: count * hop].reshape(count, hop)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 1e-4)
    if not len(loud):
        return samples
    first, last = max(0, int(loud[0]) - 2), int(loud[-1]) + 3
    return samples[first * hop : last * hop] if last < count else samples[first * hop :]


def read_wav(path: Path) -> FloatArray:
    """PCM WAV of 8, 16 or 32 bits, any rate, any channels -> mono float32 `[N]` at 16 kHz, -1..1, trimmed."""
    try:
        raw = path.read_bytes()
        with wave.open(io.BytesIO(raw)) as f:
            rate, width, channels, frames = f.getframerate(), f.getsampwidth(), f.getnchannels(), f.getnframes()
            if frames * width * channels > len(raw):
                raise DataError(f"{path}: the header says {frames} samples, the file has {len(raw)} bytes; fetch it again")
            data = f.readframes(frames)
    except (wave.Error, EOFError, OSError) as e:
        raise DataError(f"{path}: not a readable PCM WAV file ({e}); fetch it again or take it out") from None
    if width not in (1, 2, 4) or channels < 1 or not 4_000 <= rate <= 192_000:
        raise DataError(f"{path}: {rate} Hz, {8 * width} bits; give PCM of 8, 16 or 32 bits at 4 to 192 kHz")
    if len(data) < frames * width * channels or frames < rate // 20:
        raise DataError(f"{path}: {frames} samples at {rate} Hz; a spoken digit needs at least 0.05 s")
    pcm = np.frombuffer(data, {1: "u1", 2: "<i2", 4: "<i4"}[width]).astype(np.float32).reshape(-1, channels).mean(axis=1)
    pcm = (pcm - 128.0) / 128.0 if width == 1 else pcm / float(1 << (8 * width - 1))
    if not np.any(pcm):
        raise DataError(f"{path}: all samples are zero; take it out")
    return trim(resample(pcm.astype(np.float32), rate))
