"""How long after its end a word reaches the session, and how well its times are known: the shipped model, live settings.

    python benchmarks/word_latency.py [--utterances 100]

Synthetic voices that training never saw, so that the true times are known (espeak-ng tells them). Audio is pushed in chunks
of 40 ms; a word's latency is the end of the chunk that brought it minus the word's true end. The processor's time is
measured apart, per second of audio. What passing words on before the final result costs: false words on as many utterances of
words outside the vocabulary that training never used, as passed on, and as the final results alone have them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clcr_edge.errors import UsageError
from clcr_edge.packets import AudioChunk, FloatArray, Word
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.speech import Recogniser
from clcr_edge.stt import augment
from clcr_edge.stt.synthetic import clean_utterance, random_voice
from clcr_edge.stt.vocabulary import DIGITS, TEST_FILLERS, TEST_VARIANTS, TRAIN_ACCENTS, VOCABULARY

_CHUNK = 640
_OUT = Path(__file__).resolve().parent / "results" / "word_latency.json"
_NEVER = 1_000_000  # updates: nothing is passed on ahead of the final result


def listen(recogniser: Recogniser, samples: FloatArray) -> list[tuple[Word, float]]:
    """Each word with the end of the chunk that brought it, from the beginning of a stream."""
    recogniser.reset()
    heard = []
    for first in range(0, len(samples) - _CHUNK + 1, _CHUNK):
        now_s = (first + _CHUNK) / 16_000
        heard += [(w, now_s) for w in recogniser.push(AudioChunk(samples[first : first + _CHUNK], 16_000, first / 16_000))]
    return heard


def false_words(model: Path, stable: int, seed: int, utterances: int) -> dict[str, float]:
    """Per minute, where no word of the vocabulary is said."""
    passing, waiting = (Recogniser(model, stable=n, check=False) for n in (stable, _NEVER))
    passed: list[str] = []
    final: list[str] = []
    minutes = 0.0
    index = found = 0
    while found < utterances:
        rng = np.random.default_rng([seed, index, 1])
        index += 1
        words = tuple(str(w) for w in rng.choice(TEST_FILLERS, int(rng.integers(1, 5))))
        try:
            samples, _ = clean_utterance(words, random_voice(rng, TRAIN_ACCENTS, TEST_VARIANTS), rng)
        except UsageError:
            continue
        found += 1
        samples = np.pad(augment.level(samples, -10.0), (8_000, 24_000)).astype(np.float32)
        minutes += len(samples) / 16_000 / 60
        passed += [w.text for w, _ in listen(passing, samples)]
        final += [w.text for w, _ in listen(waiting, samples)]
    return {
        "minutes": round(minutes, 2),
        "passed_per_minute": round(len(passed) / minutes, 2),
        "digits_passed_per_minute": round(sum(w in DIGITS for w in passed) / minutes, 2),
        "final_per_minute": round(len(final) / minutes, 2),
        "digits_final_per_minute": round(sum(w in DIGITS for w in final) / minutes, 2),
    }


def main(utterances: Annotated[int, typer.Option(min=1)] = 100, seed: int = 0, stable: int = 3, out: Path = _OUT) -> None:
    """Measure, print, write JSON."""
    model = default_speech_model()
    assert model is not None
    recogniser = Recogniser(model, stable=stable, check=False)
    latency: list[float] = []
    starts: list[float] = []
    ends: list[float] = []
    spoken = audio_s = computed_s = 0.0
    index = found = wrong = 0
    while found < utterances:
        rng = np.random.default_rng([seed, index])
        index += 1
        words = tuple(str(w) for w in rng.choice(VOCABULARY, int(rng.integers(1, 5))))
        try:
            samples, phones = clean_utterance(words, random_voice(rng, TRAIN_ACCENTS, TEST_VARIANTS), rng)
        except UsageError:  # espeak-ng ran two words together: no truth to compare with
            continue
        found, spoken = found + 1, spoken + len(words)
        samples = np.pad(augment.level(samples, -10.0), (8_000, 24_000)).astype(np.float32)
        mine = [[p for p in phones if p[1] == k] for k in range(len(words))]
        truth = [(0.5 + min(p[2] for p in m), 0.5 + max(p[3] for p in m)) for m in mine]
        begun = time.process_time()
        heard = listen(recogniser, samples)
        computed_s += time.process_time() - begun
        audio_s += len(samples) / 16_000
        if tuple(w.text for w, _ in heard) != words:
            wrong += 1
            continue
        for (word, now_s), (start_s, end_s) in zip(heard, truth, strict=True):
            latency.append(now_s - end_s)
            starts.append(word.start_s - start_s)
            ends.append(word.end_s - end_s)

    def latencies(values: list[float]) -> dict[str, float]:
        ms = 1_000.0 * np.asarray(values)
        p50, p90, p99 = (round(float(np.percentile(ms, q)), 1) for q in (50, 90, 99))
        return {"n": len(values), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}

    def errors(values: list[float]) -> dict[str, float]:
        size = 1_000.0 * np.abs(values)
        p50, p95 = (round(float(np.percentile(size, q)), 1) for q in (50, 95))
        return {"n": len(values), "p50_ms": p50, "p95_ms": p95, "within_60_ms": round(float(np.mean(size <= 60)), 4)}

    result = {
        "stable_updates": stable, "seed": seed, "utterances": found, "not_all_right": wrong, "words": int(spoken),
        "latency": latencies(latency), "start_error": errors(starts), "end_error": errors(ends),
        "compute_per_audio_second": round(computed_s / audio_s, 4),
        "false_words": false_words(model, stable, seed, utterances),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
