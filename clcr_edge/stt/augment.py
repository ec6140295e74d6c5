"""What a room, a microphone, a channel and the world do to speech, drawn from one seeded generator."""

from __future__ import annotations

import numpy as np

from clcr_edge.stt.arrays import FloatArray

RATE_HZ = 16_000


def resample(samples: FloatArray, rate_hz: float, curve: FloatArray | None = None) -> FloatArray:
    """Band-limited resampling of a whole utterance to 16 kHz, float32 `[N]` -> `[N * 16000 / rate_hz]`.

    `curve` (gains at 65 frequencies, evenly from 0 to 8 kHz of the result) shapes the spectrum at no extra cost.
    """
    padded = np.pad(samples, (0, 1024))  # circular convolution: what wraps round, wraps into silence
    n_out = round(len(padded) * RATE_HZ / rate_hz)
    spectrum = np.fft.rfft(padded)
    result = np.zeros(n_out // 2 + 1, np.complex128)
    keep = min(len(result), len(spectrum))
    result[:keep] = spectrum[:keep] * (n_out / len(padded))
    if curve is not None:
        result *= np.interp(np.linspace(0.0, 1.0, len(result)), np.linspace(0.0, 1.0, len(curve)), curve)
    wanted = round(len(samples) * RATE_HZ / rate_hz)
    return np.fft.irfft(result, n_out)[:wanted].astype(np.float32)


def random_curve(rng: np.random.Generator) -> FloatArray:
    """A channel: gentle tilt and bumps (+-6 dB), a high-pass up to 300 Hz, and often a low-pass from 2.6 to 8 kHz."""
    hz = np.linspace(0.0, RATE_HZ / 2, 65)
    db = np.interp(hz, np.linspace(0, 8000, 9), rng.normal(0.0, 2.5, 9)) + rng.uniform(-3, 3) * hz / 4000
    if rng.random() < 0.5:
        db -= 12.0 * np.clip(np.log2(rng.uniform(60, 300) / np.maximum(hz, 20.0)), 0, 3)
    if rng.random() < 0.5:  # a telephone, a cheap microphone, an 8 kHz recording
        db -= 60.0 * np.clip(np.log2(np.maximum(hz, 20.0) / rng.uniform(2600, 8000)), 0, 1)
    return np.asarray(10 ** (np.clip(db, -60, 20) / 20), np.float32)


def room(samples: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A small room: direct sound, a few early reflections and an exponentially decaying tail (T60 0.1 to 0.6 s)."""
    length = int(RATE_HZ * 0.35)
    t = np.arange(length) / RATE_HZ
    tail = rng.normal(size=length) * 10 ** (-3.0 * t / rng.uniform(0.1, 0.6))
    tail[: int(RATE_HZ * 0.004)] = 0.0
    response = tail * (10 ** (rng.uniform(-12, 4) / 20) / np.linalg.norm(tail))
    response[0] = 1.0
    for delay in rng.integers(20, 400, 4):
        response[delay] += rng.normal(0, 0.25)
    size = 1 << int(np.ceil(np.log2(len(samples) + length)))
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return wet[: len(samples)].astype(np.float32)


def coloured_noise(n: int, rng: np.random.Generator, slope: float | None = None) -> FloatArray:
    """Noise with power ~ 1 / f^slope (0 white, 1 pink, 2 brown), slowly changing loudness, unit RMS, float32 `[n]`."""
    slope = rng.uniform(0.0, 2.0) if slope is None else slope
    size = 1 << int(np.ceil(np.log2(max(n, 2))))
    spectrum = rng.normal(size=size // 2 + 1) + 1j * rng.normal(size=size // 2 + 1)
    hz = np.arange(size // 2 + 1) * RATE_HZ / size
    spectrum *= np.maximum(hz, 40.0) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, size)[:n]
    swing = np.interp(np.arange(n), np.linspace(0, n, 6), 10 ** (rng.normal(0, 2.0, 6) / 20))
    noise *= swing
    return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-12), np.float32)


def tones(n: int, rng: np.random.Generator) -> FloatArray:
    """Something like music or a machine: a few held harmonic notes with soft onsets, unit RMS, float32 `[n]`."""
    out = np.zeros(n)
    for _ in range(int(rng.integers(2, 6)) + n // RATE_HZ):
        start = int(rng.integers(0, max(1, n - 800)))
        t = np.arange(min(int(rng.uniform(0.08, 1.0) * RATE_HZ), n - start)) / RATE_HZ
        pitch = 55.0 * 2 ** (int(rng.integers(0, 60)) / 12)
        envelope = np.minimum(t / rng.uniform(0.003, 0.1), 1.0) * np.exp(-t / rng.uniform(0.1, 1.0))
        vibrato = rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(4, 7) * t)
        for k in range(1, 9):
            if pitch * k < 7500:
                out[start : start + len(t)] += (
                    envelope * np.sin(2 * np.pi * pitch * k * (t + vibrato / 50)) / k ** rng.uniform(0.6, 2)
                )
    return np.asarray(out / (np.sqrt(np.mean(out**2)) + 1e-12), np.float32)


def babble(n: int, others: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Several utterances at once, unit RMS, float32 `[n]`."""
    out = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        other = others[int(rng.integers(len(others)))]
        if len(other):
            out += np.resize(np.roll(other, int(rng.integers(len(other)))), n)
    return np.asarray(out / (np.sqrt(np.mean(out**2)) + 1e-12), np.float32)


def rms(samples: FloatArray) -> float:
    """Root mean square of what is not silence (the loudest half of 20 ms frames)."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    if not len(frames):
        return float(np.sqrt(np.mean(samples**2) + 1e-20))
    power = np.sort(np.mean(frames**2, axis=1))
    return float(np.sqrt(np.mean(power[len(power) // 2 :]) + 1e-20))


def add_noise(samples: FloatArray, noise: FloatArray, snr_db: float) -> FloatArray:
    """Speech plus unit-RMS noise at a signal-to-noise ratio over the whole band."""
    return np.asarray(samples + noise * np.float32(rms(samples) * 10 ** (-snr_db / 20)), np.float32)


def level(samples: FloatArray, peak_db: float) -> FloatArray:
    """Scale so that the peak is `peak_db` below full scale, and round to 16 bits as a sound card does."""
    peak = float(np.max(np.abs(samples))) if len(samples) else 0.0
    scaled = samples * np.float32(10 ** (peak_db / 20) / peak) if peak > 0 else samples
    return np.asarray(np.round(np.clip(scaled, -1, 1) * 32_767) / 32_768, np.float32)


def distort(samples: FloatArray, others: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """The whole chain at random strength: room, noise of some kind, level. float32 `[N]` at 16 kHz, same length."""
    out = samples
    if rng.random() < 0.4:
        out = room(out, rng)
    if rng.random() < 0.85:
        kind = rng.random()
        n = len(out)
        if kind < 0.65:
            noise = coloured_noise(n, rng)
        elif kind < 0.8 and others:
            noise = babble(n, others, rng)
        else:
            noise = tones(n, rng)
        out = add_noise(out, noise, float(rng.uniform(4, 35)))
    return level(out, float(rng.uniform(-32, -1)))
