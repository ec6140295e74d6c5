"""What is drawn anew each time a chunk is trained on: another vocal tract, another channel, another noise.

A rendered utterance has one noise for good, from its first sample to its last. So a noise that sets in was a sound never heard:
a model trained without this took it for the word "nine". Hence noises that begin and end, under speech and in silence. All of
it is done on log-mel frames, where a noise adds as `logaddexp`. Some noises ring like claps, which were all but always "six".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from clcr_edge.stt.arrays import BoolArray, FloatArray, IntArray
from clcr_edge.stt.mel import BANDS, HIGH_HZ, LOW_HZ, RATE_HZ, log_mel

_WARP = 0.1
_GRID = np.linspace(0, 5, BANDS)
_LEFT_KNOT = np.minimum(_GRID.astype(int), 4)
_HISS_S = 60
_DIGITAL_SILENCE = np.float32(-15.94)  # log-mel of zeros
_NEPERS = np.log(10) / 10  # of power, per decibel
_STEP = 2.5  # frames that a sudden change takes, seen through a window of 25 ms


@dataclass(frozen=True)
class Noises:
    """What noises a training mixes in. hushed: share of the chunks that are emptied for one; bluest: the power of the bluest is
    as f to this; ringing: some are claps that ring, or pulse."""

    hushed: float
    bluest: float
    ringing: bool


STEADY = Noises(0.05, 0.5, ringing=False)
ALL = Noises(0.08, 1.5, ringing=True)


def vary(mel: FloatArray, silent: BoolArray, noises: Noises, rng: np.random.Generator) -> FloatArray:
    """Log-mel chunks float32 `[n, T, 40]`, changed; silent: bool `[n]`, those in which nobody speaks."""
    return _masked(_noisy(_other_channel(_other_voice(mel, rng), rng), silent, noises, rng), rng)


def hush(mel: FloatArray, labels: IntArray, silence: int, share: float, rng: np.random.Generator) -> BoolArray:
    """A share of the chunks emptied in place but for a soft hiss, for a noise to set in; their labels `[n, K]` become
    `silence`. Which: bool `[n]`."""
    rows = rng.random(len(mel)) < share
    level = _NEPERS * rng.uniform(-165.0, -50.0, rows.sum())  # from far under the last of 16 bits on
    mel[rows] = np.logaddexp(_DIGITAL_SILENCE, _hiss_of(_hiss()[1] + level[:, None], mel.shape[1], rng))
    labels[rows] = silence
    return np.asarray(rows)


def _other_voice(mel: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The mel axis stretched by up to 10 %."""
    n = len(mel)
    place = np.clip(np.arange(BANDS) * (1 + rng.uniform(-_WARP, _WARP, (n, 1))), 0, BANDS - 1)
    low = np.minimum(place.astype(int), BANDS - 2)
    part = (place - low)[:, None, :].astype(np.float32)
    rows = np.arange(n)[:, None]
    bands = mel.transpose(0, 2, 1)
    lower, upper = bands[rows, low].transpose(0, 2, 1), bands[rows, low + 1].transpose(0, 2, 1)
    return np.asarray(lower + (upper - lower) * part)


def _curves(n: int, spread: float, rng: np.random.Generator) -> FloatArray:
    """Smooth curves over the bands `[n, 40]` through six normal knots."""
    knots = rng.normal(0.0, spread, (n, 6))
    part = _GRID - _LEFT_KNOT
    return np.asarray(knots[:, _LEFT_KNOT] * (1 - part) + knots[:, _LEFT_KNOT + 1] * part)


def _other_channel(mel: FloatArray, rng: np.random.Generator) -> FloatArray:
    n = len(mel)
    offset = _curves(n, 0.4, rng) + rng.normal(0.0, 0.5, (n, 1))  # +-1.7 dB per knot, +-2 dB in all
    return np.asarray(mel + offset[:, None, :].astype(np.float32))


@cache
def _hiss() -> tuple[FloatArray, FloatArray]:
    """A minute of white noise, float32 `[T, 40]` about the logarithm of its mean power in each band; and that, `[40]`, for an
    RMS of full scale."""
    mel = log_mel(np.random.default_rng(0).normal(0.0, 1.0, _HISS_S * RATE_HZ).astype(np.float32))
    mean = np.log(np.exp(mel.astype(np.float64)).mean(axis=0))
    return np.asarray(mel - mean, np.float32), np.asarray(mean, np.float32)


def _hiss_of(spectrum: FloatArray, length: int, rng: np.random.Generator) -> FloatArray:
    """Noise with a mean log-power per band, `[n, 40]` -> float32 `[n, length, 40]`."""
    hiss, _ = _hiss()
    first = rng.integers(0, len(hiss) - length, len(spectrum))
    return np.asarray(hiss[first[:, None] + np.arange(length)] + spectrum[:, None, :].astype(np.float32))


def _centres_hz() -> FloatArray:
    low, high = (1127.0 * np.log(1 + hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    return np.asarray(700.0 * (np.exp(np.linspace(low, high, BANDS + 2)[1:-1] / 1127.0) - 1))


def _loudness(power: FloatArray) -> FloatArray:
    """Log of the power of all bands in the louder half of the frames: log-mel `[n, T, 40]` -> `[n]`."""
    frames = np.sort(np.exp(power).sum(axis=2), axis=1)
    return np.asarray(np.log(frames[:, frames.shape[1] // 2 :].mean(axis=1) + 1e-6))


def _clap(since: FloatArray, decay: FloatArray) -> FloatArray:
    """Amplitude, squared, of a knock or clap that rings: `since` frames after it, `decay` frames to 1 / e of its amplitude."""
    return np.asarray(np.clip((since + _STEP / 2) / _STEP, 0.0, 1.0) * np.exp(-2.0 * since / decay))


def _gate(n: int, length: int, ringing: bool, rng: np.random.Generator) -> FloatArray:
    """Log of a noise's power by frame `[n, T]`. As many of them last throughout as set in and as end; where some ring, as many
    again are claps, and pulse."""
    t, at = np.arange(length), rng.uniform(0, length, (n, 1))
    ramp = np.where(rng.random((n, 1)) < 0.6, _STEP, rng.uniform(_STEP, 30.0, (n, 1)))
    kind = rng.integers(-1, 4 if ringing else 2, (n, 1))  # ends, lasts, sets in, claps, pulses
    part = np.where(kind == 0, 1.0, 0.5 + kind * (t - at) / ramp)
    if ringing:
        decay = np.exp(rng.uniform(np.log(0.3), np.log(20.0), (n, 1)))
        again = rng.uniform(15.0, 2.0 * length, (n, 1))  # frames until the next clap
        claps = np.where(t >= at, _clap((t - at) % again, decay), 0.0)
        pulses = np.maximum(np.sin(2.0 * np.pi * rng.uniform(0.01, 0.08, (n, 1)) * (t - at)), 0.0) ** 2
        part = np.where(kind == 2, claps, np.where(kind == 3, pulses, part))
    return np.asarray(np.log(np.clip(part, 1e-30, 1.0)))


def _noisy(mel: FloatArray, silent: BoolArray, noises: Noises, rng: np.random.Generator) -> FloatArray:
    """Half of the chunks, and nine in ten where nobody speaks, with one noise more: bluish to brown, with bumps; 8 to 40 dB
    under what is said, at any level where nobody speaks."""
    rows = np.flatnonzero(rng.random(len(mel)) < np.where(silent, 0.9, 0.5))
    n, length = len(rows), mel.shape[1]
    if not n:
        return mel
    _, mean = _hiss()
    colour = mean - rng.uniform(-noises.bluest, 2.0, (n, 1)) * np.log(_centres_hz() / 1000.0) + _curves(n, 0.4, rng)
    full_scale = np.log(np.exp(mean).sum())
    colour += full_scale - np.log(np.exp(colour).sum(axis=1, keepdims=True))
    under = _loudness(mel[rows]) - full_scale - _NEPERS * rng.uniform(8.0, 40.0, n)
    level = np.where(silent[rows], _NEPERS * rng.uniform(-70.0, -6.0, n), under)
    swing = np.stack([np.interp(np.arange(length), np.linspace(0, length, 4), k) for k in rng.normal(0.0, 0.4, (n, 4))])
    loud = (level[:, None] + swing + _gate(n, length, noises.ringing, rng)).astype(np.float32)
    mel[rows] = np.logaddexp(mel[rows], _hiss_of(colour, length, rng) + loud[:, :, None])
    return mel


def _masked(mel: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Some with a band (SpecAugment) filled with its own mean."""
    for row in np.flatnonzero(rng.random(len(mel)) < 0.3):
        first, width = int(rng.integers(0, BANDS - 6)), int(rng.integers(1, 7))
        mel[row, :, first : first + width] = mel[row, :, first : first + width].mean()
    return mel
