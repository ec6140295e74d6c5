"""Recordings without labels: people's digits, and voices that were made of people's recordings.

They are aligned once, then cut, joined, reversed and distorted.

Digits are the only words that people say in the training data. So that a human voice does not simply mean a digit, the same
people also "say" what is no word: digits backwards, the first part of one digit joined to the last part of another, and
digits broken off. Those are labelled as plain phonemes or spoken noise, which is what `[unk]` is made of.
"""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clcr_edge.errors import DataError, UsageError
from clcr_edge.stt import augment
from clcr_edge.stt.accents import AccentVoice, lines, speak
from clcr_edge.stt.align import Unit, align, dense_scores
from clcr_edge.stt.arrays import FloatArray, IntArray
from clcr_edge.stt.flite import FliteVoice
from clcr_edge.stt.mel import RATE_HZ, log_mel
from clcr_edge.stt.synth import Voice, synthesiser
from clcr_edge.stt.synthetic import other_words, random_words
from clcr_edge.stt.units import SILENCE, SPOKEN_NOISE, Units
from clcr_edge.stt.vocabulary import DIGITS, VOCABULARY

_LOUD = np.log(10**2.0)  # within 20 dB of the loudest frame
_PAD = int(0.15 * RATE_HZ)
_AUDIBLE, _MARGIN = 0.02, int(0.02 * RATE_HZ)  # of the loudest sample; what is kept beside what can be heard


@dataclass(frozen=True)
class Take:
    """A recording at 16 kHz float32 `[N]`, what is said in it, and, once aligned, its units (unit, start_s, end_s)."""

    speaker: str
    words: tuple[str, ...]
    samples: FloatArray
    units: tuple[Unit, ...] = ()


def read_wav(path: Path) -> tuple[FloatArray, int]:
    """A 16-bit mono WAV file: float32 `[N]` in -1..1 and its rate. DataError for anything else."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2:
                raise DataError(f"{path} is not 16-bit mono: convert it first")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
            return samples / np.float32(32_768), file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"{path} cannot be read as WAV: {error}") from error


def fsdd_takes(root: Path, per_digit: int | None = None) -> list[Take]:
    """Free Spoken Digit Dataset under `root`/recordings ({digit}_{speaker}_{index}.wav), in a fixed order."""
    folder = root / "recordings"
    found: list[tuple[str, int, int, Path]] = []
    for path in folder.glob("*_*_*.wav"):
        parts = path.stem.split("_")
        found.append((parts[1], int(parts[0]), int(parts[2]), path))
    if not found:
        raise DataError(f"{folder} holds no {{digit}}_{{speaker}}_{{index}}.wav: give the folder of the data set")
    takes = []
    for speaker, digit, index, path in sorted(found):
        if per_digit is None or index < per_digit:
            samples, rate_hz = read_wav(path)
            takes.append(Take(speaker, (DIGITS[digit],), augment.resample(samples, rate_hz)))
    return takes


def flite_takes(voices: Sequence[str], count: int, talk: int, seed: int) -> list[Take]:
    """`count` utterances of random words by each of Flite's voices, and `talk` of other words in a row. MissingPartError where
    Flite is absent."""
    takes = []
    for number, name in enumerate(voices):
        voice = FliteVoice(name)
        for index in range(count + talk):
            rng = np.random.default_rng([seed, number, index])
            words, pause = (random_words(rng), 0.4) if index < count else (other_words(rng), 0.0)
            text = words[0] + "".join((", " if rng.random() < pause else " ") + word for word in words[1:])
            samples, rate_hz = voice.speak(text, float(rng.uniform(0.75, 1.35)))
            takes.append(Take(f"flite-{name}", words, augment.resample(samples, rate_hz)))
    return takes


def accent_takes(voice: AccentVoice, count: int, seed: int) -> list[Take]:
    """`count` single words by a foreign voice, about a quarter of them none of the vocabulary. `MissingPartError` where the
    voice is absent."""
    takes = []
    with tempfile.TemporaryDirectory() as folder:
        for line, path in speak(voice, lines(voice, count, seed), Path(folder)):
            samples, rate_hz = read_wav(path)
            samples = augment.resample(samples, rate_hz)
            loud = np.flatnonzero(np.abs(samples) > _AUDIBLE * np.abs(samples).max(initial=1e-9))
            if not len(loud):
                continue
            first, last = max(0, int(loud[0]) - _MARGIN), int(loud[-1]) + _MARGIN
            samples = samples[first:last]
            units = () if line.word else ((SPOKEN_NOISE, _MARGIN / RATE_HZ, (len(samples) - _MARGIN) / RATE_HZ),)
            takes.append(Take(voice.speaker, (line.word,) if line.word else (), samples, units))
    return takes


def _spellings(word: str, units: Units) -> list[tuple[str, ...]]:
    """Possible units of any word; those of a word outside the vocabulary come from espeak-ng. Empty where unknown."""
    if word in VOCABULARY:
        return [pronunciation for pronunciation, _ in units.pronunciations[word]]
    found = set()
    for accent in ("gmw/en-US", "gmw/en"):
        try:
            spoken = synthesiser().speak((word,), Voice(accent))
        except UsageError:
            continue
        found.add(tuple(s.phone if units.pdf(s.phone) >= 0 else SPOKEN_NOISE for s in spoken.segments))
    return sorted(found)


def align_takes(
    takes: Sequence[Take],
    posteriors: Callable[[FloatArray], FloatArray],
    log_priors: FloatArray,
    units: Units,
    worst: float = 0.05,
) -> list[Take]:
    """Takes with their units' times, by a network that has never heard these voices. The `worst` fitting share is left out.
    Takes that have their units already stay as they are."""
    spellings: dict[str, list[tuple[str, ...]]] = {}
    rng = np.random.default_rng(0)
    known = [take for take in takes if take.units]
    aligned: list[tuple[float, Take]] = []
    for take in takes:
        if take.units:
            continue
        for word in take.words:
            if word not in spellings:
                spellings[word] = _spellings(word, units)
        if not all(spellings[word] for word in take.words):
            continue
        # Near-silence around it, so that a word which fills its file has somewhere to begin and end.
        samples = np.pad(augment.level(take.samples, -6.0), _PAD)
        samples += rng.normal(0.0, 2e-4, len(samples)).astype(np.float32)
        mel = log_mel(samples)
        scores = dense_scores(posteriors, mel) - 0.7 * log_priors
        # A network of synthetic voices calls much of a strange voice silence. What is loud is not.
        loudness = np.logaddexp.reduce(mel, axis=1)
        scores[loudness > loudness.max() - _LOUD, units.pdf(SILENCE)] -= 8.0
        found = align(scores, [spellings[word] for word in take.words], units)
        if found is None:
            continue
        score, words = found
        pad_s = _PAD / RATE_HZ
        shifted = tuple((unit, start - pad_s, end - pad_s) for word in words for unit, start, end in word)
        aligned.append((score, Take(take.speaker, take.words, take.samples, shifted)))
    limit = float(np.quantile([score for score, _ in aligned], worst)) if aligned else 0.0
    return known + [take for score, take in aligned if score >= limit]


def _plain(unit: str, units: Units) -> str:
    phone = unit.split("/")[1] if "/" in unit else unit
    return phone if units.pdf(phone) >= 0 else SPOKEN_NOISE


def _reversed(take: Take) -> Take:
    length = len(take.samples) / RATE_HZ
    first, last = take.units[0][1], take.units[-1][2]
    return Take(take.speaker, (), take.samples[::-1].copy(), ((SPOKEN_NOISE, length - last, length - first),))


def _cut(take: Take, units: Units, after: int, head: bool) -> tuple[FloatArray, list[Unit]]:
    """The part of a take up to its unit number `after` (head), or from the next unit on, and its units as plain ones."""
    at_s = take.units[after][2]
    at = int(np.clip(at_s * RATE_HZ, 0, len(take.samples)))
    if head:
        return take.samples[:at].copy(), [(_plain(u, units), s, e) for u, s, e in take.units[: after + 1]]
    return take.samples[at:].copy(), [(_plain(u, units), s - at_s, e - at_s) for u, s, e in take.units[after + 1 :]]


def _splice(a: Take, b: Take, units: Units, rng: np.random.Generator) -> Take | None:
    """The head of one take and the tail of another, or a head alone; None where that would make a word."""
    if len(a.units) < 2 or len(b.units) < 2:
        return None
    head, head_units = _cut(a, units, int(rng.integers(0, len(a.units) - 1)), head=True)
    if rng.random() < 0.3:  # broken off
        if len(a.units) - len(head_units) < 2:  # it would still be heard as the word
            return None
        tail: FloatArray = np.zeros(0, np.float32)
        tail_units: list[Unit] = []
    else:
        tail, tail_units = _cut(b, units, int(rng.integers(0, len(b.units) - 1)), head=False)
        if min(len(head), len(tail)) < 320:
            return None
        tail = tail * np.float32(augment.rms(head) / max(augment.rms(tail), 1e-4))
    joined = [u for u, _, _ in head_units + tail_units]
    for entries in units.pronunciations.values():
        for pronunciation, _ in entries:
            if [_plain(u, units) for u in pronunciation] == joined:
                return None
    fade = min(80, len(head), len(tail))
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        head[-fade:] = head[-fade:] * (1 - ramp) + tail[:fade] * ramp
        tail = tail[fade:]
    shift = (len(head) - fade) / RATE_HZ
    moved = [(u, s + shift, e + shift) for u, s, e in tail_units]
    return Take(a.speaker, (), np.concatenate([head, tail]), tuple(head_units + moved))


def compose(takes: Sequence[Take], units: Units, rng: np.random.Generator) -> list[Take]:
    """One to three takes of one speaker in a row: words as they are, and now and then one turned into what is no word."""
    sequence = []
    for _ in range(int(rng.integers(1, 4))):
        take = takes[int(rng.integers(len(takes)))]
        kind = rng.random()
        if kind < 0.10:
            take = _reversed(take)
        elif kind < 0.32 and len(take.words) == 1:
            take = _splice(take, takes[int(rng.integers(len(takes)))], units, rng) or take
        sequence.append(take)
        if len(take.words) > 1:
            break
    return sequence


def utterance(
    sequence: Sequence[Take], units: Units, others: list[FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Takes as one distorted utterance: log-mel float16 `[T, 40]` and targets `[T]`.

    Speed 0.8 to 1.25 (with pitch and formants: as it were, another speaker), channel, pauses, room, noise, level.
    """
    speed = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
    curve = augment.random_curve(rng)
    pieces, segments = [np.zeros(int(rng.uniform(0.1, 0.5) * RATE_HZ), np.float32)], []
    at = len(pieces[0])
    for take in sequence:
        samples = augment.level(take.samples, float(rng.uniform(-9, -3)))
        samples = augment.resample(samples, RATE_HZ * speed, curve)
        segments += [(unit, start / speed + at / RATE_HZ, end / speed + at / RATE_HZ) for unit, start, end in take.units]
        gap = np.zeros(int(rng.uniform(0.0, 0.45) * RATE_HZ), np.float32)
        pieces += [samples, gap]
        at += len(samples) + len(gap)
    pieces.append(np.zeros(int(rng.uniform(0.15, 0.5) * RATE_HZ), np.float32))
    features = log_mel(augment.distort(np.concatenate(pieces), others, rng))
    return features.astype(np.float16), units.labels(segments, len(features))


def render_takes(
    by_speaker: Mapping[str, Sequence[Take]], units: Units, count: int, seed: int
) -> list[tuple[FloatArray, IntArray]]:
    """`count` utterances of each speaker, as features and targets."""
    result = []
    for number, speaker in enumerate(sorted(by_speaker)):
        takes = by_speaker[speaker]
        others = [take.samples for take in takes[:: max(1, len(takes) // 40)]]
        for index in range(count):
            rng = np.random.default_rng([seed, number, index])
            result.append(utterance(compose(takes, units, rng), units, others, rng))
    return result
