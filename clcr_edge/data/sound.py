"""What the microphone hears: recordings at another speed, level, timbre and room, over the noise of the room.

Signal-to-noise ratios are defined on speech-active power: the mean power of the 10 ms frames within 20 dB of a
recording's loudest, averaged over what is said in the stream, against the power of the noise alone (full band).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from clcr_edge.data.bank import DigitBank
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.fields import SOUND, room_responses, sound_noise
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.packets import FloatArray

_TAIL = 3_200
_BABBLE = 1 << 19
_EQ_HZ = np.array([0.0, 80.0, 160.0, 315.0, 630.0, 1_250.0, 2_500.0, 3_500.0, 5_000.0, 8_000.0])


@dataclass(frozen=True)
class Utterance:
    """Something said. samples: the raw recording; start: first sample in the stream; speed: 1 = as recorded."""

    samples: FloatArray
    start: int
    speed: float
    level_db: float

    @property
    def length(self) -> int:
        """Samples it lasts in the stream, without the room's echo."""
        return round(len(self.samples) / self.speed)


@dataclass(frozen=True)
class Room:
    """Timbre and echo of one stream. eq_db: gain at `_EQ_HZ`; response: row of `room_responses`, None for none."""

    eq_db: FloatArray
    response: int | None


def active_power(samples: FloatArray) -> float:
    """Mean power of the 10 ms frames within 20 dB of the loudest; 0 for silence."""
    count = len(samples) // 160
    if count == 0:
        return float(np.square(samples).mean()) if len(samples) else 0.0
    power = np.square(samples[: count * 160].reshape(count, 160)).mean(axis=1)
    return float(power[power >= power.max() * 0.01].mean())


@lru_cache(maxsize=1)
def _smooth_sizes() -> np.ndarray:
    sizes = sorted(
        2**a * 3**b * 5**c for a in range(4, 18) for b in range(5) for c in range(4) if 1_000 <= 2**a * 3**b * 5**c <= 400_000
    )
    return np.asarray(sizes)


def draw_room(rng: np.random.Generator, plain: bool) -> Room:
    """A microphone's timbre and, half of the time, an echo; when `plain`, neither: recordings as they are."""
    if plain:
        return Room(np.zeros(len(_EQ_HZ), np.float32), None)
    eq = rng.normal(0.0, 4.0, len(_EQ_HZ)) + rng.normal(0.0, 1.3) * np.log2(np.maximum(_EQ_HZ, 40.0) / 1_000.0)
    if rng.random() < 0.3:  # a small loudspeaker, a telephone
        eq[:3] -= rng.uniform(0, 15)
        eq[8:] -= rng.uniform(0, 20)
    response = None if rng.random() < 0.5 else int(rng.integers(len(room_responses())))
    return Room(np.clip(eq, -20.0, 12.0).astype(np.float32), response)


def speak(utterance: Utterance, room: Room) -> FloatArray:
    """The utterance as it sounds in the room, speech-active power 1 before its own level: float32 `[length + tail]`.

    Speed, timbre and echo are one pass through the spectrum; the change of speed is exact and band-limited, and moves
    pitch and formants with it (which also makes other speakers of the few there are).
    """
    raw = utterance.samples
    sizes = _smooth_sizes()
    n_in = int(sizes[np.searchsorted(sizes, len(raw) + _TAIL)])
    n_out = int(sizes[np.abs(sizes - n_in / utterance.speed).argmin()])
    # The nearest fast size is within some 2 % of the speed wanted, which nobody hears.
    padded = np.zeros(n_in, np.float32)
    padded[: len(raw)] = raw
    spectrum = np.fft.rfft(padded)
    bins = min(n_in, n_out) // 2
    out = np.zeros(n_out // 2 + 1, complex)
    hz = np.arange(bins) * (RATE_HZ / n_out)
    gain = np.interp(hz, _EQ_HZ, 10.0 ** (room.eq_db / 20.0))
    out[:bins] = spectrum[:bins] * gain
    if room.response is not None:
        response = np.fft.rfft(room_responses()[room.response], n_out)
        out[:bins] *= response[:bins]
    sound = np.fft.irfft(out, n_out)[: min(n_out, utterance.length + _TAIL)].astype(np.float32)
    power = active_power(sound)
    if power > 0.0:
        sound *= np.float32(10.0 ** (utterance.level_db / 20.0) / np.sqrt(power))
    ramp = np.linspace(0.0, 1.0, 80, dtype=np.float32)
    sound[:80] *= ramp
    sound[-80:] *= ramp[::-1]
    return sound


_BABBLES: WeakKeyDictionary[DigitBank, FloatArray] = WeakKeyDictionary()


def _babble(bank: DigitBank) -> FloatArray:
    """Half a minute of several people at once, made of the bank's recordings played backwards; unit RMS."""
    if bank not in _BABBLES:
        rng = np.random.default_rng(1_050)
        total = np.zeros(_BABBLE, np.float32)
        for _ in range(6):
            at = 0
            while True:
                part = bank.recordings[rng.integers(len(bank.recordings))][::-1]
                if at + len(part) > _BABBLE:
                    break
                total[at : at + len(part)] += part / max(np.sqrt(active_power(part)), 1e-6)
                at += len(part) + int(rng.integers(0, 2_400))
        _BABBLES[bank] = np.asarray(total / total.std(), np.float32)
    return _BABBLES[bank]


def _noise_bed(bank: DigitBank, count: int, conditions: Conditions, rng: np.random.Generator) -> FloatArray:
    kind = str(rng.choice(conditions.noise_kinds))
    source = _babble(bank) if kind == "babble" else sound_noise(kind)
    start = int(rng.integers(len(source)))
    repeats = -(-(start + count) // len(source))
    bed = np.tile(source, repeats)[start : start + count] if repeats > 1 else source[start : start + count]
    bed = bed / np.float32(max(float(bed.std()), 1e-3))
    if not conditions.plain and rng.random() < 0.3:  # it comes and goes
        knots = np.exp(rng.normal(0.0, 0.5, count // 8_000 + 3))
        swell = np.interp(np.arange(0, count, 160) / 8_000, np.arange(len(knots)), knots).repeat(160)[:count]
        bed = bed * (swell / np.sqrt(np.square(swell).mean())).astype(np.float32)
    return np.asarray(bed, np.float32)


def mix(
    utterances: list[Utterance],
    count: int,
    bank: DigitBank,
    conditions: Conditions,
    rng: np.random.Generator,
) -> FloatArray:
    """The sound of a whole stream: float32 `[count]` at 16 kHz, -1..1."""
    assert SOUND >= _BABBLE
    room = draw_room(rng, conditions.plain)
    audio = np.zeros(count, np.float32)
    level = rng.uniform(-30.0, -20.0) if conditions.plain else rng.uniform(-42.0, -14.0)
    powers = []
    for utterance in utterances:
        sound = speak(utterance, room)
        end = min(count, utterance.start + len(sound))
        if end > utterance.start:
            audio[utterance.start : end] += sound[: end - utterance.start]
            powers.append(10.0 ** (utterance.level_db / 10.0))
    if conditions.audio_snr_db is not None:
        power = float(np.mean(powers)) if powers else 1.0
        audio += _noise_bed(bank, count, conditions, rng) * np.float32(
            np.sqrt(power * 10.0 ** (-conditions.audio_snr_db / 10.0))
        )
    if not conditions.plain and rng.random() < 0.7:  # the microphone's own hiss
        kind, below_db = str(rng.choice(("white", "pink"))), rng.uniform(15.0, 50.0)
        start = int(rng.integers(SOUND - count)) if count < SOUND else 0
        hiss = sound_noise(kind)[start : start + count]
        audio[: len(hiss)] += hiss * np.float32(audio.std() * 10.0 ** (-below_db / 20.0))
    audio *= np.float32(10.0 ** (level / 20.0))
    return np.clip(audio, -1.0, 1.0, out=audio)
