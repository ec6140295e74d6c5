"""Synthetic speech carries exact labels, and the corpus is the same each time."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from clcr_edge.errors import UsageError
from clcr_edge.stt import augment
from clcr_edge.stt.drawn_voices import drawn_variant
from clcr_edge.stt.synth import Voice, synthesiser
from clcr_edge.stt.synthetic import render

pytestmark = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


def test_segments_cover_the_words_in_order() -> None:
    speech = synthesiser().speak(("seven", "stop", "hello"), Voice("gmw/en-US", "Mike"), (",",))
    assert [s.word for s in speech.segments] == sorted(s.word for s in speech.segments)
    assert "".join(s.phone for s in speech.segments if s.word == 0) == "sEv@n"
    ends = [s.end_s for s in speech.segments]
    assert all(s.start_s < s.end_s for s in speech.segments)
    assert ends == sorted(ends)
    assert ends[-1] <= len(speech.samples) / speech.rate_hz
    between = (speech.segments[4].end_s + 0.02, speech.segments[5].start_s - 0.02)  # the comma is a pause
    first, last = (int(t * speech.rate_hz) for t in between)
    assert last > first
    loud = np.abs(speech.samples).max()
    assert np.abs(speech.samples[first:last]).max() < 0.1 * loud


def test_an_unknown_voice_is_refused() -> None:
    with pytest.raises(UsageError, match="gmw/xx"):
        synthesiser().speak(("yes",), Voice("gmw/xx"))


def test_a_drawn_voice_is_spoken_and_the_systems_own_stay_what_they_are() -> None:
    own = [Voice("gmw/en"), Voice("gmw/en-US", "Mike")]
    drawn = [Voice("gmw/en", drawn=drawn_variant(np.random.default_rng(seed))) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    words = ("seven", "stop")
    before = [synthesiser().speak(words, voice) for voice in own]
    speech = [synthesiser().speak(words, voice) for voice in drawn]
    after = [synthesiser().speak(words, voice) for voice in own]
    for one, other in zip(before, after, strict=True):  # not to the sample: espeak-ng keeps state from voice to voice
        assert [s.phone for s in one.segments] == [s.phone for s in other.segments]
        assert abs(one.segments[-1].end_s - other.segments[-1].end_s) < 0.005
        assert abs(augment.rms(one.samples) / augment.rms(other.samples) - 1) < 0.02
    assert all({s.word for s in x.segments} == {0, 1} for x in speech)
    assert len(speech[0].samples) == pytest.approx(len(speech[2].samples), rel=0.01)
    sounds = [before[0].samples, speech[0].samples, speech[1].samples]
    for i, this in enumerate(sounds):  # an unknown variant would silently be the plain voice
        for that in sounds[i + 1 :]:
            length = min(len(this), len(that))
            assert np.abs(this[:length] - that[:length]).max() > 0.05


@pytest.mark.parametrize("odd", [False, True])
def test_drawn_voices_speak_up(odd: bool) -> None:
    loud = []
    for seed in range(30):
        rng = np.random.default_rng([8, seed])
        loud.append(augment.rms(synthesiser().speak(("seven",), Voice("gmw/en", drawn=drawn_variant(rng, odd))).samples))
    assert min(loud) > 0.003
    assert max(loud) < 0.7  # full scale, cut off, is 1


def test_corpus_is_the_same_for_every_number_of_workers() -> None:
    one, two = render(12, 5, workers=1), render(12, 5, workers=2)
    assert [s.words for s in one] == [s.words for s in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.features, b.features)
    assert any(s.words for s in one)
    drawn = render(12, 5, drawn=1.0)
    assert sum(s.words == t.words and len(s.features) == len(t.features) for s, t in zip(one, drawn, strict=True)) < 12


def test_resample_keeps_a_tone_and_changes_speed() -> None:
    t = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    up = augment.resample(tone, 8000)
    assert len(up) == 16_000
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(up[500:-500] - expected[500:-500]).max() < 0.02
    assert len(augment.resample(tone, 8000 * 1.25)) == 12_800


def test_noise_has_the_asked_ratio() -> None:
    rng = np.random.default_rng(2)
    speech = rng.normal(size=16_000).astype(np.float32) * 0.1
    noise = augment.coloured_noise(16_000, rng)
    added = augment.add_noise(speech, noise, 10.0) - speech
    ratio = 20 * np.log10(augment.rms(speech) / np.sqrt(np.mean(added**2)))
    assert ratio == pytest.approx(10.0, abs=0.1)
    assert np.abs(augment.level(speech, -6.0)).max() == pytest.approx(0.501, abs=0.001)
