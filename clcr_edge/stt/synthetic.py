"""The synthetic corpus: utterances of vocabulary words, other words and made-up words, in many voices, and noise alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clcr_edge.errors import UsageError
from clcr_edge.stt import augment
from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.drawn_voices import drawn_variant
from clcr_edge.stt.mel import RATE_HZ, log_mel
from clcr_edge.stt.synth import Voice, synthesiser
from clcr_edge.stt.vocabulary import (
    NEAR_MISSES,
    TRAIN_ACCENTS,
    TRAIN_FILLERS,
    TRAIN_VARIANTS,
    VOCABULARY,
    pseudo_word,
)

Features = Callable[[FloatArray], FloatArray]
_SHARD = 500  # utterances rendered by one process: espeak-ng keeps state, so a fixed shard is what makes a run repeatable


@dataclass(frozen=True)
class Spoken:
    """An utterance: features float16 `[T, 40]`, 10 ms apart, and its phonemes (phone, word number, start_s, end_s). Noise has
    no words."""

    words: tuple[str, ...]
    phones: tuple[tuple[str, int, float, float], ...]
    features: FloatArray


def random_words(rng: np.random.Generator) -> tuple[str, ...]:
    """One to four words: mostly vocabulary, the rest everyday words, near misses and made-up words."""
    words = []
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.random()
        if kind < 0.62:
            words.append(str(rng.choice(VOCABULARY)))
        elif kind < 0.78:
            words.append(str(rng.choice(TRAIN_FILLERS)))
        elif kind < 0.87:
            words.append(str(rng.choice(NEAR_MISSES)))
        else:
            words.append(pseudo_word(rng))
    return tuple(words)


def other_words(rng: np.random.Generator) -> tuple[str, ...]:
    """Three to eight words, none of them in the vocabulary: what people say when they talk of something else."""
    kinds = rng.random(int(rng.integers(3, 9)))
    return tuple(
        str(rng.choice(TRAIN_FILLERS)) if kind < 0.6 else str(rng.choice(NEAR_MISSES)) if kind < 0.75 else pseudo_word(rng)
        for kind in kinds
    )


def random_voice(rng: np.random.Generator, accents: Sequence[str], variants: Sequence[str]) -> Voice:
    """A voice of the given accents and variants at a random rate, pitch and liveliness."""
    return Voice(
        accent=str(rng.choice(accents)),
        variant=str(rng.choice(variants)),
        words_per_minute=int(rng.integers(110, 245)),
        pitch=int(rng.integers(15, 90)),
        pitch_range=int(rng.integers(10, 90)),
        gap=int(rng.integers(0, 6)) if rng.random() < 0.5 else 0,
    )


def training_voice(rng: np.random.Generator, drawn: float, odd: bool = False) -> Voice:
    """One of espeak-ng's own voices, or, with a chance of `drawn`, one (an odd one) that is drawn for this utterance alone."""
    voice = random_voice(rng, TRAIN_ACCENTS, TRAIN_VARIANTS)
    if drawn and rng.random() < drawn:
        return replace(voice, variant="", drawn=drawn_variant(rng, odd))
    return voice


def clean_utterance(
    words: tuple[str, ...], voice: Voice, rng: np.random.Generator, speed: float = 1.0, curve: FloatArray | None = None
) -> tuple[FloatArray, tuple[tuple[str, int, float, float], ...]]:
    """Words in a voice at 16 kHz with a silent lead and tail, and their phonemes: (phone, word, start_s, end_s)."""
    pauses = tuple("," if rng.random() < 0.3 else "" for _ in words[1:])
    speech = synthesiser().speak(words, voice, pauses, seed=int(rng.integers(1 << 31)))
    samples = augment.resample(speech.samples, speech.rate_hz * speed, curve)
    lead = int(rng.uniform(0.1, 0.5) * RATE_HZ)
    tail = int(rng.uniform(0.15, 0.6) * RATE_HZ)
    phones = tuple(
        (s.phone, s.word, s.start_s / speed + lead / RATE_HZ, s.end_s / speed + lead / RATE_HZ) for s in speech.segments
    )
    return np.pad(samples, (lead, tail)), phones


def _noise_alone(rng: np.random.Generator) -> FloatArray:
    n = int(rng.uniform(1.0, 3.0) * RATE_HZ)
    sound = augment.tones(n, rng) if rng.random() < 0.5 else augment.coloured_noise(n, rng)
    if rng.random() < 0.3:  # knocks and clicks
        for start in rng.integers(0, n - 400, 6):
            sound[start : start + 400] += (rng.normal(size=400) * np.exp(-np.arange(400) / rng.uniform(5, 120))).astype(
                np.float32
            ) * np.float32(rng.uniform(1, 8))
    return augment.level(sound, float(rng.uniform(-45, -3)))


def _shard(arguments: tuple[int, int, int, float, float, bool, Features]) -> list[Spoken]:
    seed, first, count, noise_share, drawn, odd, features = arguments
    result: list[Spoken] = []
    recent: list[FloatArray] = []
    for index in range(first, first + count):
        rng = np.random.default_rng([seed, index])
        if rng.random() < noise_share:
            result.append(Spoken((), (), features(_noise_alone(rng)).astype(np.float16)))
            continue
        while True:
            voice = training_voice(rng, drawn, odd)
            speed = float(rng.uniform(0.85, 1.18))
            words = random_words(rng)
            try:
                samples, phones = clean_utterance(words, voice, rng, speed, augment.random_curve(rng))
                break
            except UsageError:
                continue  # espeak-ng merged two words: draw again
        recent = [*recent[-20:], samples]
        result.append(Spoken(words, phones, features(augment.distort(samples, recent, rng)).astype(np.float16)))
    return result


def render(
    count: int,
    seed: int,
    workers: int = 1,
    noise_share: float = 0.06,
    drawn: float = 0.0,
    odd: bool = False,
    features: Features = log_mel,
) -> list[Spoken]:
    """`count` utterances; the same for every number of workers. drawn: share of them in a voice drawn for the utterance, odd
    ones where `odd`; features: of samples at 16 kHz."""
    jobs = [(seed, first, min(_SHARD, count - first), noise_share, drawn, odd, features) for first in range(0, count, _SHARD)]
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with context.Pool(workers, maxtasksperchild=1) as pool:
        spoken = [utterance for shard in pool.imap(_shard, jobs) for utterance in shard]
        pool.close()  # a worker that is terminated leaves its folder of voices behind
        pool.join()
    return spoken
