"""What belongs to which tick; every packet that is not used is counted; bad packets are refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clcr_edge.config import TickConfig
from clcr_edge.errors import StreamError
from clcr_edge.packets import AudioChunk, VideoFrame, Word
from clcr_edge.runtime.ticker import Ticker


def frame(t_s: float, seq: int, value: int = 0) -> VideoFrame:
    return VideoFrame(np.full((96, 96, 3), value, np.uint8), t_s, seq)


def audio(first: int, count: int) -> AudioChunk:
    return AudioChunk(np.full(count, 0.1, np.float32), 16_000, first / 16_000)


@pytest.fixture
def ticker() -> Ticker:
    made = Ticker(TickConfig())
    made.start(0.0)
    return made


def test_a_frame_belongs_to_its_tick_even_when_its_stamp_is_a_hair_early(ticker: Ticker) -> None:
    ticker.push_frame(frame(0.0, 0))
    ticker.push_frame(frame(0.04 - 1e-9, 1))
    assert ticker.cut().frame_seq == 0
    assert ticker.cut().frame_seq == 1


def test_the_newest_frame_wins_and_the_others_are_counted(ticker: Ticker) -> None:
    for seq in range(4):
        ticker.push_frame(frame(0.01 * seq, seq))
    assert ticker.cut().frame_seq == 3
    assert (ticker.stats.frames_used, ticker.stats.frames_unused) == (1, 3)


def test_a_slow_camera_s_frame_stands_in_then_goes(ticker: Ticker) -> None:
    ticker.push_frame(frame(0.0, 7))
    seen = [ticker.cut().frame_seq for _ in range(14)]
    assert seen == [7] * 12 + [None] * 2  # held for 0.5 s


def test_a_frame_older_than_one_used_is_late(ticker: Ticker) -> None:
    ticker.push_frame(frame(0.03, 1))
    ticker.cut()
    ticker.push_frame(frame(0.01, 0))
    assert ticker.stats.frames_late == 1


def test_audio_is_all_there_or_absent(ticker: Ticker) -> None:
    ticker.push_audio(audio(0, 639))
    assert ticker.cut().fbank is None
    ticker.push_audio(audio(639, 641))  # one late sample, then a whole tick
    assert ticker.cut().fbank is not None
    assert ticker.stats.samples_late == 639 + 1
    assert ticker.stats.samples_used == 640


def test_small_jitter_of_the_stamps_is_smoothed_over(ticker: Ticker) -> None:
    for k in range(20):
        ticker.push_audio(AudioChunk(np.zeros(320, np.float32), 16_000, k * 0.02 + 0.004 * math.sin(k)))
    assert all(ticker.cut().fbank is not None for _ in range(10))
    assert ticker.stats.samples_used == 6_400


def test_a_hole_in_the_audio_makes_its_ticks_absent_and_no_others(ticker: Ticker) -> None:
    ticker.push_audio(audio(0, 1_280))
    ticker.push_audio(audio(1_280 + 1_000, 2_200))
    there = [ticker.cut().fbank is not None for _ in range(6)]
    # The hole is samples 1280..2280: ticks 2 and 3 touch it.
    assert there == [True, True, False, False, True, True]


def test_audio_of_a_tick_that_has_gone_is_late(ticker: Ticker) -> None:
    ticker.cut()
    ticker.push_audio(audio(0, 640))
    assert ticker.stats.samples_late == 640
    assert ticker.cut().fbank is None


def test_words_enter_the_next_tick_in_order_and_wait_when_there_are_many(ticker: Ticker) -> None:
    for k in range(6):
        ticker.push_word(Word(f"w{k}", 0.0, 0.01))
    assert [w.text for w in ticker.cut().words] == ["w0", "w1", "w2", "w3"]
    assert ticker.stats.words_waiting == 2
    assert [w.text for w in ticker.cut().words] == ["w4", "w5"]


def test_buffers_are_bounded() -> None:
    ticker = Ticker(TickConfig())
    ticker.start(0.0)
    for seq in range(1_000):
        ticker.push_frame(frame(seq * 0.001, seq))
        ticker.push_word(Word("w", 0.0, 0.0))
    assert ticker.stats.frames_unused == 1_000 - 64
    assert ticker.stats.words_dropped == 1_000 - 256
    for k in range(30):
        ticker.push_audio(audio(k * 16_000, 16_000))
    with pytest.raises(StreamError, match="step the session"):
        ticker.push_audio(audio(30 * 16_000, 16_000))


@pytest.mark.parametrize(
    ("push", "named"),
    [
        (lambda t: t.push_frame(VideoFrame(np.zeros((9, 9), np.uint8), 0.0, 5)), r"frame 5: uint8 \(9, 9\)"),
        (lambda t: t.push_frame(frame(float("nan"), 5)), "nan"),
        (lambda t: t.push_audio(AudioChunk(np.zeros(9, np.float32), 44_100, 0.0)), "44100 Hz"),
        (lambda t: t.push_audio(AudioChunk(np.full(9, np.nan, np.float32), 16_000, 0.0)), "NaN"),
        (lambda t: t.push_audio(AudioChunk(np.zeros((9, 2), np.float32), 16_000, 0.0)), r"\(9, 2\)"),
        (lambda t: t.push_word(Word("x", 0.0, float("inf"))), "'x'"),
        (lambda t: t.start(1.0), "already started"),
    ],
)
def test_what_cannot_be_is_refused_by_name(ticker: Ticker, push, named: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StreamError, match=named):
        push(ticker)


def test_stepping_before_anything_was_pushed_says_so() -> None:
    with pytest.raises(StreamError, match="start"):
        Ticker(TickConfig()).cut()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (Word("", 0.0, 0.1), "has no text"),
        (Word("  ", 0.0, 0.1), "has no text"),
        (Word("one", 0.3, 0.1), "ends at 0.1 s, before it starts at 0.3 s"),
        (Word("one", 0.0, 0.1, -0.1), "has confidence -0.1; give 0 to 1"),
        (Word("one", 0.0, 0.1, 1.01), "has confidence 1.01"),
        (Word("one", 0.0, 0.1, math.nan), "has confidence nan"),
    ],
)
def test_a_word_that_no_recogniser_says_is_refused(ticker: Ticker, word: Word, said: str) -> None:
    with pytest.raises(StreamError, match=said):
        ticker.push_word(word)
    assert ticker.cut().words == ()


def test_a_word_of_no_length_is_a_word(ticker: Ticker) -> None:
    ticker.push_word(Word("one", 0.1, 0.1, 0.0))
    assert len(ticker.cut().words) == 1
