"""Recordings turned into what is no word: never a vocabulary word by accident, and labelled as what it is."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.errors import DataError, MissingPartError
from clcr_edge.stt.flite import TEST_VOICES, TRAIN_VOICES, FliteVoice
from clcr_edge.stt.takes import Take, _reversed, _splice, compose, flite_takes, fsdd_takes, read_wav, render_takes
from clcr_edge.stt.units import SPOKEN_NOISE, Units, word_units
from clcr_edge.stt.vocabulary import VOCABULARY

_SOUNDS = {"four": ("f", "o@"), "five": ("f", "aI", "v"), "nine": ("n", "aI", "n"), "six": ("s", "I", "k", "s")}


@pytest.fixture
def units() -> Units:
    pronunciations = {word: ((word_units(word, phones), 1.0),) for word, phones in _SOUNDS.items()}
    return Units(("I", "aI", "f", "k", "n", "s", "v"), pronunciations)  # no plain o@: it becomes spoken noise


def _take(word: str, units: Units) -> Take:
    rng = np.random.default_rng(len(word))
    (named, _), *_ = units.pronunciations[word]
    samples = rng.normal(0, 0.1, 1600 * len(named)).astype(np.float32)
    return Take("ann", (word,), samples, tuple((unit, i * 0.1, (i + 1) * 0.1) for i, unit in enumerate(named)))


def test_reversed_is_spoken_noise_where_the_word_was(units: Units) -> None:
    take = _take("six", units)
    back = _reversed(take)
    np.testing.assert_array_equal(back.samples, take.samples[::-1])
    assert back.words == ()
    assert back.units == ((SPOKEN_NOISE, pytest.approx(0.0), pytest.approx(0.4)),)


def test_splices_are_plain_and_never_a_word(units: Units) -> None:
    words = {tuple(phones) for phones in _SOUNDS.values()}
    made = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a, b = (str(word) for word in rng.choice(list(_SOUNDS), 2))
        spliced = _splice(_take(a, units), _take(b, units), units, rng)
        if spliced is None:
            continue
        names = tuple(unit for unit, _, _ in spliced.units)
        assert not any("/" in name for name in names)
        assert names not in words  # f|our + f|ive would be five
        assert spliced.units[-1][2] == pytest.approx(len(spliced.samples) / 16_000, abs=0.01)
        made.add(names)
    assert ("n", "v") in made or ("n", "aI", "v") in made
    assert len(made) > 10


def test_composed_utterances_have_words_and_non_words(units: Units) -> None:
    takes = [_take(word, units) for word in _SOUNDS]
    kinds = [take.words for seed in range(60) for take in compose(takes, units, np.random.default_rng(seed))]
    assert 0.1 < kinds.count(()) / len(kinds) < 0.5
    rendered = render_takes({"ann": takes}, units, 4, seed=3)
    again = render_takes({"ann": takes}, units, 4, seed=3)
    for (mel, labels), (mel2, labels2) in zip(rendered, again, strict=True):
        assert mel.shape == (len(labels), 40)
        assert mel.dtype == np.float16
        assert 0 < np.mean(labels != units.pdf("sil")) < 1
        np.testing.assert_array_equal(mel, mel2)
        np.testing.assert_array_equal(labels, labels2)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the folder of the data set"):
        fsdd_takes(tmp_path)
    stereo = tmp_path / "stereo.wav"
    with wave.open(str(stereo), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(80))
    with pytest.raises(DataError, match="not 16-bit mono"):
        read_wav(stereo)
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as WAV"):
        read_wav(tmp_path / "text.wav")


def test_flite_speaks_or_says_what_to_install() -> None:
    assert not set(TRAIN_VOICES) & set(TEST_VOICES)
    with pytest.raises(MissingPartError, match="apt-get install flite"):
        FliteVoice("nobody")
    if not shutil.which("flite"):
        pytest.skip("flite is not installed (apt-get install flite)")
    samples, rate_hz = FliteVoice("rms").speak("seven")
    slow, _ = FliteVoice("rms").speak("seven", 1.5)
    assert rate_hz == 16_000
    assert 0.1 < np.abs(samples).max() <= 1.0
    assert len(slow) > 1.2 * len(samples)


def test_flites_voices_also_talk_of_something_else() -> None:
    if not shutil.which("flite"):
        pytest.skip("flite is not installed (apt-get install flite)")
    takes = flite_takes(("rms", "slt"), 2, 20, seed=1)
    assert [take.speaker for take in takes] == ["flite-rms"] * 22 + ["flite-slt"] * 22
    talk = [take.words for take in (*takes[2:22], *takes[24:])]
    assert all(3 <= len(words) <= 8 and not set(words) & set(VOCABULARY) for words in talk)
    assert len(set(talk)) == 40
