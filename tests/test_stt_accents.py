"""Foreign voices say the vocabulary: the tables are whole, and a real one is understood by the recogniser that ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.errors import MissingPartError
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.stt.accents import _OTHER, _SPELLED, TRAIN_VOICES, AccentVoice, Language, lines, speak
from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.mel import RATE_HZ
from clcr_edge.stt.units import SPOKEN_NOISE
from clcr_edge.stt.vocabulary import VOCABULARY

KED = AccentVoice("festival", "ked_diphone", "english")
needs_festival = pytest.mark.skipif(
    not Path("/usr/share/festival/voices/english/ked_diphone").is_dir(),
    reason="festival or its voice ked is not installed: apt-get install festival festvox-kdlpc16k",
)


@pytest.mark.parametrize("language", _SPELLED)
def test_a_language_spells_every_word_of_the_vocabulary(language: Language) -> None:
    assert len(_SPELLED[language].split()) == len(VOCABULARY)
    assert all(all(spelling for spelling in word.split("/")) for word in _SPELLED[language].split())
    spelled = {spelling for word in _SPELLED[language].split() for spelling in word.split("/")}
    assert not spelled & set(_OTHER[language].lower().split())


def test_every_voice_reads_by_a_language_that_is_spelled() -> None:
    assert {voice.language for voice in TRAIN_VOICES} == set(_SPELLED) == set(_OTHER)
    assert len({voice.speaker for voice in TRAIN_VOICES}) == len(TRAIN_VOICES)


def test_what_a_voice_says_is_drawn_from_its_name_and_the_seed() -> None:
    said = lines(KED, 400, 1)
    assert said == lines(KED, 400, 1)
    assert said != lines(KED, 400, 2)
    assert [x.text for x in said] != [x.text for x in lines(AccentVoice("pico", "en-US", "english"), 400, 1)]
    assert 0.15 < np.mean([line.word is None for line in said]) < 0.35
    assert {line.word for line in said} == {*VOCABULARY, None}


@pytest.mark.skipif(shutil.which("festival") is None, reason="festival is not installed: apt-get install festival")
def test_a_voice_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no_such_voice"):
        list(speak(AccentVoice("festival", "no_such_voice", "english"), lines(KED, 2, 1), tmp_path))


@needs_festival
def test_takes_of_a_real_voice_are_understood() -> None:
    pytest.importorskip("vosk", reason="vosk is not installed: pip install 'clcr-edge[audio]'")
    from clcr_edge.stt.scoring import Recogniser, known
    from clcr_edge.stt.takes import accent_takes

    model = default_speech_model()
    assert model is not None
    recogniser = Recogniser(model)
    takes = accent_takes(KED, 60, 1)
    assert len(takes) == 60
    words = [take for take in takes if take.words]
    right = sum(known(recogniser.listen(np.pad(t.samples, (6400, 9600)))) == t.words for t in words)
    assert right >= 0.7 * len(words)
    for take in takes:
        assert take.speaker == KED.speaker
        assert 0.05 * RATE_HZ < len(take.samples) < 3 * RATE_HZ
        if not take.words:  # its units are known without alignment
            ((unit, start_s, end_s),) = take.units
            assert unit == SPOKEN_NOISE
            assert 0.0 < start_s < end_s < len(take.samples) / RATE_HZ


def test_takes_whose_units_are_known_are_not_aligned() -> None:
    from clcr_edge.stt.takes import Take, align_takes
    from clcr_edge.stt.units import Units

    def asked(mel: FloatArray) -> FloatArray:
        raise AssertionError(f"asked about {len(mel)} frames")

    take = Take("festival-x", (), np.zeros(RATE_HZ, np.float32), ((SPOKEN_NOISE, 0.1, 0.9),))
    (found,) = align_takes([take], asked, np.zeros(3), Units((), {}))
    assert found is take
