"""Streams: deterministic, consistent with their own labels, hard in the way that was asked for."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from clcr_edge.config import TickConfig
from clcr_edge.data import (
    CLEAN,
    HEAVY,
    MODERATE,
    Conditions,
    DigitBank,
    ModalityDropout,
    Stream,
    evaluation_streams,
    make_stream,
    negative_stream,
    training_streams,
)
from clcr_edge.data.bank import DIGITS, NONE
from clcr_edge.data.conditions import draw_training_conditions
from clcr_edge.data.frames import make_frames, training_frames
from clcr_edge.data.hearing import COMMON_WORDS, Spoken, hear, substitute
from clcr_edge.data.sound import Room, Utterance, active_power, speak
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.data.words import TICKS, known_by, make_words
from clcr_edge.errors import ConfigError


@pytest.fixture(scope="module")
def bank() -> DigitBank:
    """The shipped bank."""
    return synthetic_bank("check")


def _same(a: Stream, b: Stream) -> bool:
    arrays = ("frames", "audio", "vision_present", "audio_present", "word_ticks", "labels")
    alike = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)
    return alike and a.words == b.words and a.events == b.events and a.traces == b.traces


def test_same_seed_same_stream_bit_for_bit(bank: DigitBank) -> None:
    for conditions in (CLEAN, draw_training_conditions(np.random.default_rng(3))):
        first, second = (make_stream(bank, conditions, 12, 7, dropout=True) for _ in range(2))
        assert _same(first, second)
        assert not _same(first, make_stream(bank, conditions, 12, 8, dropout=True))


def test_training_streams_can_start_anywhere(bank: DigitBank) -> None:
    all_of_them = list(islice(training_streams(bank, 5, seconds=6.0), 4))
    resumed = list(islice(training_streams(bank, 5, seconds=6.0, start=2), 2))
    assert all(_same(a, b) for a, b in zip(all_of_them[2:], resumed, strict=True))
    assert not _same(all_of_them[0], all_of_them[1])
    assert not _same(all_of_them[0], next(training_streams(bank, 6, seconds=6.0)))


def test_shapes_and_ranges(bank: DigitBank) -> None:
    for stream in islice(training_streams(bank, 0, seconds=8.0), 12):
        assert stream.ticks == 200
        assert stream.frames.shape == (200, 96, 96)
        assert stream.frames.dtype == np.uint8
        assert stream.audio.shape == (200 * 640,)
        assert stream.audio.dtype == np.float32
        assert np.isfinite(stream.audio).all()
        assert np.abs(stream.audio).max() <= 1.0
        assert stream.labels.dtype == np.int64
        assert len(stream.words) == len(stream.word_ticks)
        assert (np.diff(stream.word_ticks) >= 0).all()
        assert ((stream.word_ticks >= 0) & (stream.word_ticks < 200)).all()
        assert all(0.0 <= w.confidence <= 1.0 and w.start_s < w.end_s for w in stream.words)
        assert all(w.text and w.text != "[unk]" for w in stream.words)


def test_labels_are_the_events(bank: DigitBank) -> None:
    streams = [*evaluation_streams(bank, CLEAN, 40, 1), *islice(training_streams(bank, 1), 15)]
    for stream in streams:
        expected = np.full(stream.ticks, NONE)
        for event in stream.events:
            assert 0 <= event.onset < event.offset <= event.end <= stream.ticks
            assert event.end == event.offset + 25 or (event.end == stream.ticks and not stream.conditions.plain)
            assert (expected[event.onset : event.end] == NONE).all()
            expected[event.onset : event.end] = event.label
        assert np.array_equal(stream.labels, expected)
        assert len(stream.traces) == len(stream.events)
        for before, after in pairwise(stream.events):
            assert after.onset - before.end >= 20


def test_events_show_and_say_their_label(bank: DigitBank) -> None:
    count = 0
    for stream in evaluation_streams(bank, CLEAN, 40, 2):
        for event, trace in zip(stream.events, stream.traces, strict=True):
            count += 1
            assert trace.shown_s is not None
            assert trace.said_s is not None
            assert bank.image_labels[trace.image] == event.label
            assert bank.recording_labels[trace.recording] == event.label
            for start_s, end_s in (trace.shown_s, trace.said_s):
                assert event.onset <= start_s * 25 + 1e-6
                assert start_s < end_s
                assert end_s * 25 <= event.offset + 1e-6
            assert [stream.words[w].text for w in trace.words] == [DIGITS[event.label]]
    assert 40 <= count < 60


def test_frames_change_where_a_digit_is_shown(bank: DigitBank) -> None:
    stream = make_stream(bank, CLEAN, 60, 3)
    pictures = stream.frames.astype(np.float32)
    for trace in stream.traces:
        assert trace.shown_s is not None
        first, last = (round(t * 25) for t in trace.shown_s)
        before, during = pictures[max(first - 12, 0)], pictures[(first + last) // 2]
        assert np.abs(before - during).mean() > 3.0


def test_words_arrive_after_their_end(bank: DigitBank) -> None:
    lags = []
    for stream in evaluation_streams(bank, CLEAN, 60, 4):
        for trace in stream.traces:
            assert trace.said_s is not None
            lags += [(stream.word_ticks[w] + 1) * 0.04 - trace.said_s[1] for w in trace.words]
    assert min(lags) > 0.0
    assert max(lags) < 0.95
    assert 0.3 < float(np.median(lags)) < 0.6


def test_same_screenplay_under_other_conditions(bank: DigitBank) -> None:
    clean, heavy = (make_stream(bank, c, 40, 11) for c in (CLEAN, HEAVY))
    assert clean.events == heavy.events
    assert not np.array_equal(clean.frames, heavy.frames)


@pytest.mark.parametrize(("conditions", "snr"), [(MODERATE, 10.0), (HEAVY, 0.0)])
def test_snr_is_what_was_asked_for(bank: DigitBank, conditions: Conditions, snr: float) -> None:
    measured = []
    for seed in range(4):
        clean, noisy = (make_stream(bank, c, 40, seed) for c in (CLEAN, conditions))
        spoken = []
        for trace in clean.traces:
            assert trace.said_s is not None
            first, last = (int(t * 16_000) for t in trace.said_s)
            spoken.append(active_power(clean.audio[first:last]))
            assert np.sqrt(np.square(clean.audio[first:last]).mean()) > 0.005
        measured.append(10 * np.log10(np.mean(spoken) / np.square(noisy.audio - clean.audio).mean()))
    assert abs(float(np.mean(measured)) - snr) < 1.0


def test_clean_is_silent_where_nobody_speaks(bank: DigitBank) -> None:
    stream = make_stream(bank, CLEAN, 30, 5)
    assert np.count_nonzero(stream.audio == 0.0) > 0.3 * len(stream.audio)


def test_image_noise_is_what_was_asked_for(bank: DigitBank) -> None:
    quiet, noisy = (make_stream(bank, Conditions(image_noise=n), 8, 21) for n in (0.0, 0.05))
    difference = noisy.frames.astype(float) - quiet.frames
    inside = (quiet.frames > 60) & (quiet.frames < 195)
    assert 0.4 * 0.05 * 255 < difference[inside].std() < 1.1 * 0.05 * 255


def test_dropout_masks(bank: DigitBank) -> None:
    seen = {"whole": 0, "some": 0, "both": 0}
    for stream in islice(training_streams(bank, 9, seconds=8.0), 40):
        assert (stream.frames[~stream.vision_present] == 0).all()
        assert (stream.audio.reshape(stream.ticks, 640)[~stream.audio_present] == 0).all()
        vision, audio = stream.vision_present, stream.audio_present
        seen["whole"] += not vision.any() or not audio.any()
        seen["some"] += 0 < vision.sum() < stream.ticks
        seen["both"] += bool((~vision & ~audio).any())
    assert all(count > 0 for count in seen.values())
    full = make_stream(bank, HEAVY, 8, 1)
    assert full.vision_present.all()
    assert full.audio_present.all()


def test_what_nobody_can_perceive_is_no_event(bank: DigitBank) -> None:
    training = Conditions(plain=False)
    blind = ModalityDropout(whole=1.0, stretches=0.0)
    for seed in range(30):
        stream = make_stream(bank, training, 12, seed, dropout=blind)
        for event, trace in zip(stream.events, stream.traces, strict=True):
            evidence = False
            if trace.shown_s is not None:
                evidence |= bool(stream.vision_present[event.onset : event.offset].any())
            if trace.said_s is not None:
                evidence |= bool(stream.audio_present[event.onset : event.offset].any()) or bool(trace.words)
            assert evidence


def test_training_has_events_of_every_kind(bank: DigitBank) -> None:
    kinds = set()
    for seed in range(12):
        for trace in make_stream(bank, Conditions(plain=False), 20, seed).traces:
            kinds.add((trace.shown_s is not None, trace.said_s is not None))
    assert kinds == {(True, True), (True, False), (False, True)}


def test_frames_alone(bank: DigitBank) -> None:
    frames, labels = make_frames(bank, 65, 3)
    assert frames.shape == (65, 96, 96)
    assert frames.dtype == np.uint8
    assert set(labels.tolist()) <= set(range(11))
    assert 0.4 < np.mean(labels != NONE) < 0.9
    again, same_labels = make_frames(bank, 65, 3)
    assert np.array_equal(frames, again)
    assert np.array_equal(labels, same_labels)
    batches = list(islice(training_frames(bank, 1, 8), 3))
    resumed = next(training_frames(bank, 1, 8, start=2))
    assert np.array_equal(batches[2][0], resumed[0])
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_negative_streams_hold_nothing(bank: DigitBank) -> None:
    heard = 0
    for seed in range(4):
        stream = negative_stream(30, seed, bank, CLEAN)
        assert stream.events == ()
        assert (stream.labels == NONE).all()
        assert not {w.text for w in stream.words} & set(DIGITS)
        assert np.abs(stream.audio).max() > 0.01
        heard += len(stream.words)
    assert heard > 10
    assert _same(negative_stream(5, 1, bank), negative_stream(5, 1, bank))


def test_word_error_rate_is_what_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    said = [Spoken(DIGITS[i % 10], i * 1.0, i * 1.0 + 0.4) for i in range(4_000)]
    heard = hear(said, 0.3, 25 * 5_000, rng)
    by_source: dict[int, list[str]] = {}
    for h in heard:
        by_source.setdefault(h.source, []).append(h.word.text)
    deleted = 4_000 - len(by_source)
    wrong = sum(DIGITS[s % 10] not in texts for s, texts in by_source.items())
    added = sum(len(texts) - 1 for texts in by_source.values())
    assert abs((deleted + wrong + added) / 4_000 - 0.3) < 0.03
    assert all(DIGITS[h.source % 10] == h.word.text for h in hear(said, 0.0, 25 * 5_000, rng))


def test_a_substitute_is_never_the_word_itself() -> None:
    rng = np.random.default_rng(1)
    assert not set(COMMON_WORDS) & set(DIGITS)
    for text in (*DIGITS, "hello", "the"):
        assert all(substitute(text, rng) != text for _ in range(200))


def test_speed_changes_length_and_pitch() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(8_000) / 16_000).astype(np.float32)
    flat = Room(np.zeros(10, np.float32), None)
    fast = speak(Utterance(tone, 0, 1.25, 0.0), flat)[:6_400]
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(6_400)))
    assert abs(float(spectrum.argmax()) * 16_000 / 6_400 - 625) < 20
    assert abs(active_power(fast) - 1.0) < 0.05


@pytest.mark.parametrize(
    "wrong",
    [{"image_noise": -0.1}, {"word_error_rate": 1.5}, {"noise_kinds": ("rain",)}, {"audio_snr_db": float("nan")}],
)
def test_conditions_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Conditions(**wrong)  # type: ignore[arg-type]


def test_lengths_are_checked(bank: DigitBank) -> None:
    with pytest.raises(ConfigError, match="seconds = 0"):
        make_stream(bank, CLEAN, 0, 1)
    with pytest.raises(ConfigError, match="too short for an event"):
        list(evaluation_streams(bank, CLEAN, 5, 1, seconds=1.0))
    with pytest.raises(ConfigError, match="whole = 2"):
        ModalityDropout(whole=2)


def test_words_are_mostly_digits_and_known_only_near_their_end(bank: DigitBank) -> None:
    words = make_words(bank, TickConfig(), 40, 3)
    assert words.fbank.shape == (40, TICKS, 4, 40)
    assert words.fbank.dtype == np.float32
    digits = (words.said != NONE).any(axis=1)
    assert 0.4 < digits.mean() < 0.8
    for row in words.said[digits]:
        told = np.flatnonzero(row != NONE)
        assert len(set(row[told])) == 1
        assert (np.diff(told) == 1).all()
    again = make_words(bank, TickConfig(), 40, 3)
    assert (words.fbank == again.fbank).all()
    assert (words.fbank != make_words(bank, TickConfig(), 40, 4).fbank).any()


def test_a_word_is_known_from_its_last_third_to_a_second_after() -> None:
    assert known_by(0, 9_600) == slice(10, 15 + 25)


def test_easy_frames_have_little_noise(bank: DigitBank) -> None:
    def roughness(hardness: float) -> float:
        frames = make_frames(bank, 64, 5, hardness)[0].astype(float)
        return float(np.abs(np.diff(frames, axis=2)).mean())

    assert roughness(0.1) < 0.7 * roughness(1.0)
    first, later = next(training_frames(bank, 1, 8, easy=10)), next(training_frames(bank, 1, 8, start=9, easy=10))
    assert (next(training_frames(bank, 1, 8))[0] != first[0]).any()
    assert (next(training_frames(bank, 1, 8, start=9))[0] == later[0]).all()
