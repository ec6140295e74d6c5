"""Audio's lesson on synthetic speech: what is due at which frame, and that a phase of it teaches the front end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE
from clcr_edge.stt.synthetic import Spoken, render
from clcr_edge.stt.units import SILENCE, Units

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'clcr-edge[train]')")

from clcr_edge.errors import DataError  # noqa: E402
from clcr_edge.model.student import Student  # noqa: E402
from clcr_edge.train import speech_lesson  # noqa: E402
from clcr_edge.train.digits import Recipe, WithAuxiliary, student_config, train_speech  # noqa: E402
from clcr_edge.train.speech_lesson import TICKS, Speech, SpeechBatches, just_said, make_speech, speech_batches  # noqa: E402

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
CONFIG = TickConfig()
# The least that says every word of the vocabulary.
_UTTERANCES = 150


def spoken(words: tuple[str, ...], *spans: tuple[float, float]) -> Spoken:
    """Words of one phoneme each, in 3 s."""
    phones = tuple(("x", place, start_s, end_s) for place, (start_s, end_s) in enumerate(spans))
    return Spoken(words, phones, np.zeros((300, CONFIG.n_mels), np.float16))


def test_a_digit_is_known_from_its_last_third_until_a_second_after_it_or_the_next() -> None:
    corpus = [spoken(("seven", "hello", "two"), (0.0, 0.3), (0.4, 0.7), (0.8, 1.1)), spoken(("hello",), (0.1, 0.4))]
    said = just_said(corpus, 100.0, 1.0)
    assert len(said) == 600
    assert (said[:20] == NONE).all()
    assert (said[20:100] == 7).all(), "until the next one is known, which is less than a second after it"
    assert (said[100:210] == 2).all()
    assert (said[210:] == NONE).all(), "hello is no digit"


def test_what_is_known_at_the_end_of_an_utterance_is_known_at_the_start_of_the_next() -> None:
    said = just_said([spoken(("nine",), (2.4, 2.7)), spoken(())], 100.0, 1.0)
    assert (said[260:370] == 9).all()
    assert (said[370:] == NONE).all()


@pytest.fixture(scope="module")
def speech() -> Speech:
    """A small corpus."""
    return make_speech(CONFIG, _UTTERANCES, seed=3)


@needs_espeak
def test_speech_is_the_same_for_a_seed_and_labelled_in_time(speech: Speech) -> None:
    again = make_speech(CONFIG, _UTTERANCES, seed=3, workers=2)
    for name in Speech._fields:
        assert np.array_equal(getattr(again, name), getattr(speech, name)), name
    assert len(speech.fbank) == len(speech.units) == len(speech.said)
    assert -3.0 < float(speech.fbank.astype(np.float32).mean()) < 3.0, "as the student reads it"
    assert set(np.unique(speech.said)) == set(range(11))
    # Speech is louder than what lies between: nowhere more than where the labels say, give or take a frame or two.
    silent = speech.units == Units((), {}).pdf(SILENCE)
    loud = speech.fbank.astype(np.float32).mean(axis=1)
    gain = {shift: loud[~np.roll(silent, shift)].mean() - loud[np.roll(silent, shift)].mean() for shift in range(-30, 31, 5)}
    assert max(gain, key=gain.__getitem__) in (0, 5), gain


@needs_espeak
def test_rendering_leaves_no_folder_of_voices_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert len(render(12, 1, workers=2, drawn=1.0)) == 12
    assert not list(tmp_path.iterdir())


@needs_espeak
def test_a_piece_comes_with_what_was_due_at_each_tick(speech: Speech) -> None:
    batches = SpeechBatches(speech, CONFIG, seed=1, count=5)
    heard, units, said = batches[7]
    assert heard.shape == (5, TICKS, CONFIG.fbank_frames, CONFIG.n_mels)
    assert units.shape == said.shape == (5, TICKS)
    assert all(torch.equal(a, b) for a, b in zip(batches[7], (heard, units, said), strict=True))
    assert not torch.equal(batches[8][1], units)
    # Each piece stands somewhere in the corpus, with its units ten frames before the end of each tick.
    for row in range(5):
        step = CONFIG.fbank_frames
        places = np.flatnonzero(speech.said[step - 1 : -step * TICKS + step - 1] == int(said[row, 0]))
        ticks = step * np.arange(TICKS)
        found = [p for p in places if np.array_equal(speech.said[p + step - 1 + ticks], said[row].numpy())]
        assert any(p + step >= 11 and np.array_equal(speech.units[p + step - 11 + ticks], units[row].numpy()) for p in found)


@needs_espeak
def test_the_phase_teaches_the_sound_encoder_and_renders_nothing_once_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = WithAuxiliary(Student(student_config()))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    recipe = replace(Recipe(), speech=_UTTERANCES, speech_steps=3, pieces=4)
    train_speech(model, recipe, tmp_path, seed=0)
    after = {k: v.clone() for k, v in model.state_dict().items()}
    changed = {k.split(".")[1] for k, v in after.items() if not torch.equal(v, before[k])}
    assert {"sound_encoder", "audio_tcn", "inter_cad"} <= changed

    def never(*_: object) -> Speech:
        raise AssertionError("rendered what nobody learns from")

    monkeypatch.setattr(speech_lesson, "make_speech", never)
    fresh = WithAuxiliary(Student(student_config()))
    train_speech(fresh, recipe, tmp_path, seed=0)
    assert all(torch.equal(v, after[k]) for k, v in fresh.state_dict().items())


def test_too_little_speech_is_an_error_that_says_so() -> None:
    short = Speech(np.zeros((100, 40), np.float16), np.zeros(100, np.int16), np.zeros(100, np.int8))
    with pytest.raises(DataError, match="100 frames of speech are too few"):
        SpeechBatches(short, CONFIG, 0, 2)
    assert list(speech_batches(CONFIG, 1, 0, 2, 1, 5, 0)) == []
