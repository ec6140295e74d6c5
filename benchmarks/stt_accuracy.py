"""How well the small Vosk model hears, by condition, on voices that its training never saw.

    python benchmarks/stt_accuracy.py --root ../shared/data --held-out DIR

DIR holds one model per person of fsdd, built with that person left out:
    for s in george jackson nicolas yweweler; do
        python -m clcr_edge.stt.build --root ../shared/data --work WORK --hold-out $s --out DIR/$s; done

Nothing here tunes anything. The table goes to the terminal, the numbers to benchmarks/results/stt_accuracy.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from clcr_edge.errors import MissingPartError, UsageError
from clcr_edge.packets import Word
from clcr_edge.runtime.speech_words import is_told
from clcr_edge.stt import augment, flite
from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.mel import RATE_HZ
from clcr_edge.stt.scoring import Errors, Heard, Recogniser, compare, known
from clcr_edge.stt.synthetic import clean_utterance, random_voice
from clcr_edge.stt.takes import fsdd_takes
from clcr_edge.stt.vocabulary import (
    DIGITS,
    TEST_ACCENTS,
    TEST_FILLERS,
    TEST_VARIANTS,
    TRAIN_ACCENTS,
    UNKNOWN,
    VOCABULARY,
)

_HERE = Path(__file__).resolve().parent
_ASSET = _HERE.parent / "clcr_edge" / "assets" / "vosk-tiny"
_SEED = 20_261


def _draw(words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(word) for word in rng.choice(words, int(rng.integers(1, 5))))


def synthetic(index: int, vocabulary: tuple[str, ...]) -> tuple[tuple[str, ...], FloatArray, dict[int, float], str]:
    """Words, clean audio, start of each word, voice. Half of the draws have an accent that training never saw, too."""
    rng = np.random.default_rng([_SEED, index, len(vocabulary)])
    while True:
        accents = TEST_ACCENTS if rng.random() < 0.5 else TRAIN_ACCENTS
        voice = random_voice(rng, accents, TEST_VARIANTS)
        words = _draw(vocabulary, rng)
        try:
            samples, phones = clean_utterance(words, voice, rng)
        except UsageError:  # espeak-ng ran two words together: no truth to compare with
            continue
        starts: dict[int, float] = {}
        for _, word, start_s, _ in phones:
            starts.setdefault(word, start_s)
        return words, samples, starts, voice.variant


def flite_utterances(count: int, vocabulary: tuple[str, ...]) -> list[tuple[tuple[str, ...], FloatArray]]:
    """Utterances of Flite's test voice (made from a person's recordings; training never heard it)."""
    voice = flite.FliteVoice(flite.TEST_VOICES[0])
    result = []
    for index in range(count):
        rng = np.random.default_rng([_SEED, 7, index, len(vocabulary)])
        words = _draw(vocabulary, rng)
        samples, rate_hz = voice.speak(", ".join(words), float(rng.uniform(0.8, 1.2)))
        result.append((words, np.pad(augment.resample(samples, rate_hz), (4800, 8000))))
    return result


def at_snr(samples: FloatArray, snr_db: float | None, rng: np.random.Generator) -> FloatArray:
    """Coloured noise (power ~ 1 / f^0..2) at an SNR over the whole band, and a random level (peak -25 to -3 dB)."""
    if snr_db is not None:
        samples = augment.add_noise(samples, augment.coloured_noise(len(samples), rng), snr_db)
    return augment.level(samples, float(rng.uniform(-25, -3)))


def words_by_condition(
    recogniser: Recogniser, utterances: list[tuple[tuple[str, ...], FloatArray, dict[int, float], str]]
) -> dict[str, Any]:
    """Word accuracy clean, at 20 dB and at 10 dB; errors of word starts; the worst voices."""
    out: dict[str, Any] = {}
    for name, snr_db in (("clean", None), ("20 dB", 20.0), ("10 dB", 10.0)):
        total, offsets = Errors(), []
        voices: dict[str, Errors] = {}
        for index, (words, samples, starts, voice) in enumerate(utterances):
            rng = np.random.default_rng([_SEED, 3, index])
            heard = recogniser.listen(at_snr(samples, snr_db, rng))
            errors = compare(words, known(heard))
            total += errors
            voices[voice] = voices.get(voice, Errors()) + errors
            if starts and known(heard) == words:
                spoken = [word for word in heard if word.text != UNKNOWN]
                offsets += [word.start_s - starts[i] for i, word in enumerate(spoken)]
        entry: dict[str, Any] = {
            "accuracy": round(total.accuracy, 4), "words": total.words, "substituted": total.substituted,
            "deleted": total.deleted, "inserted": total.inserted,
            "worst_voices": {v: round(e.accuracy, 3) for v, e in sorted(voices.items(), key=lambda item: item[1].accuracy)[:3]},
        }  # fmt: skip
        if offsets:
            size = np.abs(offsets) * 1000
            entry["start_error_ms"] = {
                "n": len(offsets), "mean": round(float(np.mean(offsets)) * 1000, 1),
                "p50": round(float(np.percentile(size, 50)), 1), "p95": round(float(np.percentile(size, 95)), 1),
                "within_60_ms": round(float(np.mean(size <= 60)), 4),
            }  # fmt: skip
        out[name] = entry
    return out


def people_digits(held_out: Path, root: Path, per_digit: int) -> dict[str, Any]:
    """Single digits of each person by the model that never heard this person: exactly this one word, nothing else."""
    grammars = {"digits": list(DIGITS), "digits and [unk]": [*DIGITS, UNKNOWN], "whole vocabulary and [unk]": None}
    out: dict[str, Any] = {}
    takes = fsdd_takes(root / "fsdd")
    for speaker in sorted({take.speaker for take in takes}):
        if not (held_out / speaker).is_dir():
            continue
        recogniser = Recogniser(held_out / speaker)
        chosen = [take for take in takes if take.speaker == speaker]
        chosen = [take for i, take in enumerate(chosen) if i % 50 < per_digit]
        entry: dict[str, Any] = {"n": len(chosen)}
        for name, grammar in grammars.items():
            wrong: Counter[str] = Counter()
            for take in chosen:
                samples = np.pad(augment.level(take.samples, -6.0), (6400, 9600))
                found = known(recogniser.listen(samples, grammar))
                if found != take.words:
                    wrong[f"{take.words[0]} -> {' '.join(found) or 'nothing'}"] += 1
            entry[name] = round(1 - wrong.total() / len(chosen), 4)
            entry[f"{name}, most frequent errors"] = dict(wrong.most_common(6))
        out[speaker] = entry
    if out:
        total = sum(entry["n"] for entry in out.values())
        out["all"] = {"n": total} | {name: round(sum(e[name] * e["n"] for e in out.values()) / total, 4) for name in grammars}
    return out


def false_words(recogniser: Recogniser, sounds: Callable[[], list[FloatArray]]) -> dict[str, Any]:
    """Words heard where none of the vocabulary is said, per minute: with the whole vocabulary, and with digits and [unk]."""
    found: list[Heard] = []
    by_grammar: list[Heard] = []
    seconds = 0.0
    for samples in sounds():
        seconds += len(samples) / RATE_HZ
        found += [word for word in recogniser.listen(samples) if word.text != UNKNOWN]
        by_grammar += [word for word in recogniser.listen(samples, [*DIGITS, UNKNOWN]) if word.text != UNKNOWN]
    minutes = seconds / 60
    digits = [word for word in found if word.text in DIGITS]
    return {
        "minutes": round(minutes, 2),
        "words_per_minute": round(len(found) / minutes, 2),
        "digits_per_minute": round(len(digits) / minutes, 2),
        "digits_per_minute_with_digits_grammar_and_unk": round(len(by_grammar) / minutes, 2),
        "confident_words_per_minute": round(sum(word.confidence >= 0.9 for word in found) / minutes, 2),
        "most_frequent": dict(Counter(word.text for word in found).most_common(5)),
    }


def _ten_seconds(make: Callable[[int, np.random.Generator], FloatArray], kind: int, count: int) -> list[FloatArray]:
    result = []
    for index in range(count):
        rng = np.random.default_rng([_SEED, kind, index])
        result.append(augment.level(make(10 * RATE_HZ, rng), float(rng.uniform(-40, -3))))
    return result


def noise_onsets(recogniser: Recogniser, count: int) -> dict[str, Any]:
    """Noise that sets in after a second of silence and lasts for two, at an RMS of 0.09: the words of `count` of them by the
    slope of the noise (power ~ 1 / f^slope), and how many of these words a run is told (`is_told`)."""
    out: dict[str, Any] = {}
    for slope in (0.0, 0.5, 1.0, 2.0):
        heard: list[Heard] = []
        for index in range(count):
            rng = np.random.default_rng([_SEED, 13, index])
            noise = 0.09 * augment.coloured_noise(2 * RATE_HZ, rng, slope)
            heard += recogniser.listen(np.pad(np.clip(noise, -1.0, 1.0), RATE_HZ))
        told = sum(is_told(Word(w.text, w.start_s, w.end_s, w.confidence)) for w in heard)
        out[f"slope {slope:g}"] = {"onsets": count, "words": sum(w.text != UNKNOWN for w in heard), "told": told}
    return out


def bursts(recogniser: Recogniser, count: int) -> dict[str, Any]:
    """Claps: bursts of white noise that decay, one a second over a hiss of -70 dB, `count` for each time constant, at an RMS of
    0.1 when they set in. How many of their words a run is told (`is_told`), and the most frequent."""
    out: dict[str, Any] = {}
    for decay_ms in (8, 30, 80):
        told: Counter[str] = Counter()
        for index in range(count):
            rng = np.random.default_rng([_SEED, 14, index])
            sound = rng.normal(0.0, 10 ** (-70 / 20), 3 * RATE_HZ)
            tail = np.exp(-np.arange(RATE_HZ) * 1000.0 / (decay_ms * RATE_HZ))
            sound[RATE_HZ : 2 * RATE_HZ] += rng.normal(0.0, 0.1, RATE_HZ) * tail
            heard = recogniser.listen(np.clip(sound, -1.0, 1.0).astype(np.float32))
            told.update(w.text for w in heard if is_told(Word(w.text, w.start_s, w.end_s, w.confidence)))
        out[f"{decay_ms} ms"] = {"bursts": count, "told": told.total(), "most_frequent": dict(told.most_common(3))}
    return out


def read_audio(path: Path) -> FloatArray:
    """Any audio file as float32 mono at 16 kHz, with half a second of silence after it."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as container:
        parts = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.pad(np.concatenate(parts).astype(np.float32), (0, RATE_HZ // 2))


def open_speech(recogniser: Recogniser, root: Path) -> dict[str, str]:
    """What it says on real recordings, word for word. (vosk_test_wav is mostly digits; each GRID clip says one digit.)"""
    paths = [root / "jfk" / "jfk.flac", root / "vosk_test_wav" / "test.wav", *sorted((root / "grid_clips").glob("*.mpg"))]
    return {path.name: " ".join(word.text for word in recogniser.listen(read_audio(path))) for path in paths if path.is_file()}


def speed(recogniser: Recogniser, sounds: list[FloatArray]) -> float:
    """Processor seconds per second of audio, streamed in 100 ms chunks."""
    began = time.process_time()
    for samples in sounds:
        recogniser.listen(samples)
    return round((time.process_time() - began) / (sum(map(len, sounds)) / RATE_HZ), 4)


def measure(model: Path, root: Path | None, held_out: Path | None, count: int, per_digit: int) -> dict[str, Any]:
    """All conditions."""
    recogniser = Recogniser(model)
    utterances = [synthetic(i, VOCABULARY) for i in range(count)]
    strangers = [synthetic(i, TEST_FILLERS) for i in range(count // 3)]
    report: dict[str, Any] = {"model": model.name, "seed": _SEED, "utterances": count}
    report["size_mb"] = round(sum(p.stat().st_size for p in model.rglob("*") if p.is_file()) / 1e6, 2)
    report["synthetic"] = words_by_condition(recogniser, utterances)
    try:
        spoken = [(words, samples, {}, flite.TEST_VOICES[0]) for words, samples in flite_utterances(count // 2, VOCABULARY)]
        report["flite_awb"] = words_by_condition(recogniser, spoken)
        other = [samples for _, samples in flite_utterances(count // 6, TEST_FILLERS)]
    except MissingPartError as error:
        report["flite_awb"] = {"skipped": str(error)}
        other = []
    report["false"] = {
        "noise": false_words(recogniser, lambda: _ten_seconds(augment.coloured_noise, 11, 20)),
        "music_like": false_words(recogniser, lambda: _ten_seconds(augment.tones, 12, 20)),
        "other_words_espeak": false_words(recogniser, lambda: [augment.level(s, -9.0) for _, s, _, _ in strangers]),
        "other_words_flite_awb": false_words(recogniser, lambda: [augment.level(s, -9.0) for s in other]) if other else {},
    }
    report["noise_onsets"] = noise_onsets(recogniser, 20)
    report["bursts"] = bursts(recogniser, 50)
    report["processor_seconds_per_second"] = speed(recogniser, [samples for _, samples, _, _ in utterances[:40]])
    if root:
        report["open_speech"] = open_speech(recogniser, root)
        if held_out:
            report["people_digits_left_one_out"] = people_digits(held_out, root, per_digit)
    return report


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{report['model']}: {report['size_mb']} MB, {report['processor_seconds_per_second']} s of processor per second"]
    for part in ("synthetic", "flite_awb"):
        for name, entry in report[part].items():
            if isinstance(entry, dict):
                start = entry.get("start_error_ms", {})
                lines.append(
                    f"{part:12} {name:6} {100 * entry['accuracy']:5.1f} % of {entry['words']} words "
                    f"(S {entry['substituted']} D {entry['deleted']} I {entry['inserted']})"
                    + (f"; starts within 60 ms: {100 * start['within_60_ms']:.1f} %, p95 {start['p95']} ms" if start else "")
                )
    for speaker, entry in report.get("people_digits_left_one_out", {}).items():
        parts = ", ".join(f"{k} {100 * v:.1f} %" for k, v in entry.items() if isinstance(v, float))
        lines.append(f"digits of {speaker} (n {entry['n']}): {parts}")
    for name, entry in report["false"].items():
        if entry:
            lines.append(
                f"false on {name} ({entry['minutes']} min): {entry['words_per_minute']} words, "
                f"{entry['digits_per_minute']} digits per minute; "
                f"{entry['digits_per_minute_with_digits_grammar_and_unk']} with the grammar of digits and [unk]"
            )
    for name, entry in report["noise_onsets"].items():
        lines.append(f"noise sets in, {name}: {entry['words']} words in {entry['onsets']} onsets, {entry['told']} told")
    for name, entry in report["bursts"].items():
        lines.append(f"claps that decay in {name}: {entry['told']} words told of {entry['bursts']}, {entry['most_frequent']}")
    lines += [f"{name}: {said or '(nothing)'}" for name, said in report.get("open_speech", {}).items()]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=_ASSET)
    parser.add_argument("--root", type=Path, help="folder with fsdd, jfk, vosk_test_wav, grid_clips")
    parser.add_argument("--held-out", type=Path, help="folder with one model per person left out")
    parser.add_argument("--utterances", type=int, default=300)
    parser.add_argument("--per-digit", type=int, default=20, help="recordings of each digit and person")
    parser.add_argument("--out", type=Path, default=_HERE / "results" / "stt_accuracy.json")
    given = parser.parse_args()
    report = measure(given.model, given.root, given.held_out, given.utterances, given.per_digit)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
