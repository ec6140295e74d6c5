"""The model that ships: it loads, it hears, its word times are right, grammars work, and it is small."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clcr_edge.errors import UsageError
from clcr_edge.packets import Word
from clcr_edge.runtime.speech_words import is_told
from clcr_edge.stt import augment, scoring
from clcr_edge.stt.fst import read_fst
from clcr_edge.stt.scoring import compare, known
from clcr_edge.stt.synth import Voice
from clcr_edge.stt.synthetic import clean_utterance
from clcr_edge.stt.vocabulary import DIGITS, UNKNOWN, VOCABULARY

pytest.importorskip("vosk", reason="vosk is not installed (pip install 'clcr-edge[audio]')")
needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")

MODEL = Path(__file__).resolve().parent.parent / "clcr_edge" / "assets" / "vosk-tiny"

# Vosk can abort the process: the model is heard in a process of its own.
_LISTEN = """
import json, sys
from pathlib import Path
import numpy as np
from clcr_edge.stt.scoring import Recogniser
recogniser = Recogniser(Path(sys.argv[1]))
jobs = json.loads(sys.argv[3])
with np.load(sys.argv[2]) as data:
    heard = [[vars(word) for word in recogniser.listen(data[name], grammar)] for name, grammar in jobs]
print(json.dumps(heard))
"""


def _listen(folder: Path, sounds: dict[str, Any], jobs: list[tuple[str, list[str] | None]]) -> list[list[scoring.Heard]]:
    np.savez(folder / "sounds.npz", **sounds)
    command = [sys.executable, "-c", _LISTEN, str(MODEL), str(folder / "sounds.npz"), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [[scoring.Heard(**word) for word in heard] for heard in json.loads(done.stdout)]


def _speak(words: tuple[str, ...], voice: Voice) -> tuple[Any, Any, np.random.Generator]:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        try:
            return *clean_utterance(words, voice, rng), rng
        except UsageError:  # espeak-ng ran two words together at this pause and rate: no truth to compare with
            continue
    raise AssertionError(f"espeak-ng cannot say {words} apart")


def test_size_and_card() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 5_000_000
    card = (MODEL / "MODEL_CARD.md").read_text()
    for needed in ("CC BY-SA 4.0", "Free Spoken Digit Dataset", "espeak-ng", "held out"):
        assert needed in card
    assert [line.split()[0] for line in (MODEL / "graph/words.txt").read_text().splitlines()] == [
        "<eps>",
        *VOCABULARY,
        UNKNOWN,
    ]
    for name in ("HCLr.fst", "Gr.fst"):
        path = MODEL / "graph" / name
        assert read_fst(path).to_bytes() == path.read_bytes()


@needs_espeak
def test_hears_every_word_with_its_time(tmp_path: Path) -> None:
    sounds, truths, starts, jobs = {}, [], [], []
    for i in range(0, len(VOCABULARY), 3):
        words = VOCABULARY[i : i + 3]
        accent, variant = (("gmw/en-US", "Mike"), ("gmw/en", "f3"), ("gmw/en", ""))[i // 3 % 3]
        samples, phones, rng = _speak(words, Voice(accent, variant, 150))
        sounds[f"s{i}"] = augment.level(augment.add_noise(samples, augment.coloured_noise(len(samples), rng), 25.0), -6.0)
        truths.append(words)
        starts.append([min(start for _, word, start, _ in phones if word == w) for w in range(len(words))])
        jobs.append((f"s{i}", None))
    heard = _listen(tmp_path, sounds, jobs)
    errors = sum((compare(truth, known(words)) for truth, words in zip(truths, heard, strict=True)), scoring.Errors())
    assert errors.accuracy >= 0.9, [known(words) for words in heard]
    offsets = [
        word.start_s - start
        for truth, words, begin in zip(truths, heard, starts, strict=True)
        if known(words) == truth
        for word, start in zip([w for w in words if w.text != UNKNOWN], begin, strict=True)
    ]
    assert len(offsets) >= 18
    assert np.mean(np.abs(offsets) <= 0.06) >= 0.95
    assert all(0.0 <= word.confidence <= 1.0 for words in heard for word in words)


@needs_espeak
def test_grammar_limits_the_words(tmp_path: Path) -> None:
    digits, _, _ = _speak(("seven", "two", "nine"), Voice("gmw/en-US", "Mike", 150))
    other, _, _ = _speak(("please", "stop", "good"), Voice("gmw/en-US", "Mike", 150))
    with_unknown = [*DIGITS, UNKNOWN]
    jobs: list[tuple[str, list[str] | None]] = [("digits", with_unknown), ("other", with_unknown), ("other", ["left", "go"])]
    first, second, third = _listen(tmp_path, {"digits": digits, "other": other}, jobs)
    assert known(first) == ("seven", "two", "nine")
    assert len(known(second)) <= 1
    assert {word.text for word in third} <= {"left", "go"}


def test_silence_and_noise_are_no_words(tmp_path: Path) -> None:
    noise = augment.level(augment.coloured_noise(16_000 * 10, np.random.default_rng(3)), -30.0)
    silence = np.zeros(16_000 * 10, np.float32)
    quiet, noisy = _listen(tmp_path, {"silence": silence, "noise": noise}, [("silence", None), ("noise", None)])
    assert quiet == []
    assert len(known(noisy)) <= 1


def test_noise_that_sets_in_is_told_as_no_word(tmp_path: Path) -> None:
    sounds = {}
    for number, (slope, loud) in enumerate(itertools.product((0.0, 0.5, 1.0, 2.0), (0.01, 0.09, 0.2))):
        noise = loud * augment.coloured_noise(32_000, np.random.default_rng([8, number]), slope)
        sounds[f"{slope} {loud}"] = np.pad(np.clip(noise, -1.0, 1.0), 16_000)
    heard = _listen(tmp_path, sounds, [(name, None) for name in sounds])
    told = {name: [w for w in words if is_told(Word(**vars(w)))] for name, words in zip(sounds, heard, strict=True)}
    assert sum(map(len, told.values())) <= 1, told


def test_compare_counts_edits() -> None:
    errors = compare(("one", "two", "three"), ("one", "too", "three", "four"))
    assert (errors.substituted, errors.deleted, errors.inserted) == (1, 0, 1)
    assert compare((), ("no",)).inserted == 1
    assert compare(("no",), ()).deleted == 1
    assert (errors + errors).accuracy == pytest.approx(1 / 3)
