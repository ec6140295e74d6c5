"""Two weeks at 25 Hz, and clocks that show 1e9 s: nothing wraps, nothing loses precision, nothing grows.

Thirty million steps are not run: what counts up is set to where two weeks would have brought it, and the clock starts late.
"""

from __future__ import annotations

import dataclasses
import resource
import tracemalloc

import numpy as np
import pytest

from clcr_edge.config import StudentConfig, TickConfig
from clcr_edge.features import FbankStream, word_age_ticks
from clcr_edge.packets import AudioChunk, FloatArray, VideoFrame, Word
from clcr_edge.runtime.audio_clock import AudioClock
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.ticker import Ticker

FORTNIGHT_S = 14 * 86_400.0
FORTNIGHT = int(FORTNIGHT_S * 25)
UPTIME_S = 3 * 365 * 86_400.0 + 0.123_456_7  # three years on the monotonic clock, off every grid
UNIX_S = 1_790_000_000.987_654_3
CONFIG = TickConfig()


class Kept:
    """An engine that only keeps its inputs: what a session makes of time, without the network."""

    precision = "fp32"

    def __init__(self) -> None:
        # A tenth of a second is no sum of powers of two: an age of exactly that is rounded another way on every clock.
        self.config = StudentConfig(classes=("a", "b"), none_class="b", tick=TickConfig(hold_frame_s=0.1))
        self.inputs: list[StepInputs] = []

    def initial_state(self) -> State:
        return {}

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        self.inputs.append(inputs)
        threes, nine = np.zeros(3, np.float32), np.zeros((3, 3), np.float32)
        return StepOutputs(np.array([0.5, 0.5], np.float32), threes, threes, threes, nine, nine), {}


def inputs_at(start_s: float, ticks: int = 200, first: int = 0) -> list[StepInputs]:
    """A camera of 50 Hz, sound, and words that end on tick boundaries and between; stamps from `start_s` on. first: the tick
    that the session has reached by then."""
    engine = Kept()
    session = Session(engine)
    session.start(start_s)
    if first:
        session._ticker._index = first
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    for tick in range(first, first + ticks):
        begin_s = start_s + tick / 25
        local = tick - first
        if local % 50 < 30:  # then it goes away, and its last frame stands in for exactly 2.5 ticks
            for half in (0, 1):
                session.push_frame(VideoFrame(images[(local + half) % 5], start_s + (tick + half / 2) / 25, 2 * tick + half))
        if local % 40 < 33:
            samples = (0.1 * rng.standard_normal(640)).astype(np.float32)
            session.push_audio(AudioChunk(samples[:317], 16_000, begin_s))
            session.push_audio(AudioChunk(samples[317:], 16_000, begin_s + 317 / 16_000))
        if local % 7 == 3:
            end_s = start_s + (tick - local % 11) / 25  # exactly so many ticks ago
            session.push_word(Word("seven", end_s - 0.3, end_s, 0.9))
            session.push_word(Word("eight", end_s - 0.3, end_s + 0.013, 0.9))
        session.step()
    return engine.inputs


def assert_same(wanted: list[StepInputs], got: list[StepInputs]) -> None:
    for tick, (a, b) in enumerate(zip(wanted, got, strict=True)):
        for f in dataclasses.fields(StepInputs):
            np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f"tick {tick}: {f.name}")


@pytest.fixture(scope="module")
def at_zero() -> list[StepInputs]:
    return inputs_at(0.0)


@pytest.mark.parametrize("start_s", [0.1, UPTIME_S, 1e9, UNIX_S, -1e6])
def test_a_stream_that_starts_late_gives_the_same_inputs(at_zero: list[StepInputs], start_s: float) -> None:
    """And so the same predictions: the network sees nothing of the clock."""
    assert sum(i.present.sum() for i in at_zero) > 200, "this stream hardly holds anything: the test would see nothing"
    assert len({float(a) for i in at_zero for a in i.word_age}) > 5
    assert_same(at_zero, inputs_at(start_s))


@pytest.mark.parametrize("start_s", [0.0, UPTIME_S, UNIX_S])
def test_two_weeks_on_the_stream_is_what_it_was(at_zero: list[StepInputs], start_s: float) -> None:
    first = FORTNIGHT + 3 * 4  # a whole number of deep tokens: the levels are due at the same ticks
    assert_same(at_zero, inputs_at(start_s, first=first))


def test_a_word_that_ended_on_a_tick_has_a_whole_age_on_any_clock() -> None:
    for start_s in (0.0, 0.1, UPTIME_S, 1e9, UNIX_S):
        for tick in range(0, 3_000, 7):
            for age in (0, 1, 5, 63):
                end_s = start_s + (tick + 1) / 25
                assert word_age_ticks(start_s + (tick + 1 - age) / 25, end_s, CONFIG) == age
    assert word_age_ticks(0.999, 1.0, CONFIG) == 0
    assert word_age_ticks(5.0, 1.0, CONFIG) == 0  # of the future
    assert word_age_ticks(1.0 - 0.0399, 1.0, CONFIG) == 0


def test_tick_times_do_not_drift() -> None:
    """Ends are start + (k + 1) / 25, never summed up."""
    ticker = Ticker(CONFIG)
    ticker.start(UPTIME_S)
    ticker._index = FORTNIGHT
    assert ticker.cut().end_s == UPTIME_S + (FORTNIGHT + 1) / 25
    assert ticker.next_end_s - (UPTIME_S + FORTNIGHT_S) == pytest.approx(0.08, abs=1e-7)


@pytest.mark.parametrize("ppm", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("began_s", [100.0, UPTIME_S, UNIX_S])
def test_the_audio_clock_after_two_weeks(began_s: float, ppm: float) -> None:
    """The count of samples stands at 1.9e10; a minute later the stamps are still right to within 3 ms, without a jump."""
    rate_hz, block = 16_000, 320
    clock = AudioClock(rate_hz)
    device_hz = rate_hz * (1 + ppm * 1e-6)
    worst = 0.0
    for k in range(60 * 50):
        before = 0.0 if k < 100 else FORTNIGHT_S
        if k == 100:  # two weeks went by: what the clock keeps of them is its count, its anchor and the newest second
            clock._count += int(FORTNIGHT_S * rate_hz)
            clock._arrival_s += FORTNIGHT_S
            clock._young_until_s += FORTNIGHT_S
            clock._estimates.clear()
        truth_s = began_s + before + k * block / device_hz
        stamped = clock.stamp(block, truth_s, truth_s + block / device_hz)
        assert stamped is not None
        worst = max(worst, abs(stamped[0] - truth_s))
    assert worst < 0.003
    assert clock.jumps == 0


def test_the_filter_bank_of_a_long_run_neither_drifts_nor_grows() -> None:
    """Four minutes without a gap, a block of five seconds again and again: the same frames each time, and no memory."""
    block = (0.1 * np.random.default_rng(2).standard_normal(5 * 16_000)).astype(np.float32)
    stream = FbankStream(CONFIG)

    def once() -> FloatArray:
        return np.concatenate([stream.push(block[i : i + 640]) for i in range(0, len(block), 640)])

    once()
    wanted = once()
    assert len(wanted) == 500
    tracemalloc.start()
    held_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(46):
        got = once()
    np.testing.assert_array_equal(got, wanted)
    assert tracemalloc.get_traced_memory()[0] < 1_000_000
    tracemalloc.stop()
    # Kept, the four minutes would be 15 MB of samples and 4 of frames.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held_kib < 8_000


def test_a_session_holds_no_more_after_many_ticks_than_after_few() -> None:
    """Packets of 1,500 ticks (a minute), most of them never used: what the ticker keeps is bounded."""
    ticker = Ticker(CONFIG)
    ticker.start(UPTIME_S)
    image = np.zeros((8, 8, 3), np.uint8)
    sizes = []
    for tick in range(1_500):
        now_s = UPTIME_S + tick / 25
        for part in range(4):
            ticker.push_frame(VideoFrame(image, now_s + part / 100, 4 * tick + part))
        if tick % 3:
            ticker.push_audio(AudioChunk(np.zeros(640, np.float32), 16_000, now_s))
        ticker.push_word(Word("a", now_s - 0.2, now_s))
        ticker.cut()
        held = sum(len(p) for _, parts in ticker._runs for p in parts)
        sizes.append((len(ticker._frames), len(ticker._runs), len(ticker._run_ids), len(ticker._words), held))
    assert max(sizes[750:]) <= max(sizes[:750])
    assert max(s[-1] for s in sizes) <= 640


class TestGraph:
    """The state's counters: the ages of words that nothing replaces, counted up in float32."""

    def test_a_word_two_weeks_old_is_as_gone_as_one_that_just_expired(self, step_model, student) -> None:  # type: ignore[no-untyped-def]
        """float32 counts to 2**24, eight days; there `age + 1` is `age`, and the word stays expired: nothing else changes."""
        from clcr_edge.runtime.onnx_engine import OnnxEngine

        engine = OnnxEngine(step_model.SerializeToString(), student.config, "fp32")
        session = Session(engine)
        session.start(0.0)
        rng = np.random.default_rng(3)
        for tick in range(120):
            session.push_frame(VideoFrame(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), tick / 25, tick))
            session.push_audio(AudioChunk((0.1 * rng.standard_normal(640)).astype(np.float32), 16_000, tick / 25))
            if tick < 20:
                session.push_word(Word("seven", tick / 25 - 0.3, tick / 25))
            session.step()
        state = {name: np.array(value) for name, value in session._state.items()}
        assert (state["word_ages"] > 64).all()
        tick_inputs = inputs_at(0.0, 4)
        frame = rng.random((1, 1, 96, 96), np.float32)
        results = []
        for age in (80.0, 2.0**24 - 1, 2.0**24, float(FORTNIGHT), 2.0**40):
            now: State = state | {"word_ages": np.full_like(state["word_ages"], age)}
            for inputs in tick_inputs[:3]:
                out, now = engine.step(dataclasses.replace(inputs, frame=frame), now)
            assert np.isfinite(out.probs).all()
            assert (now["word_ages"] >= age).all()
            results.append(out)
        for other in results[1:]:
            for f in dataclasses.fields(StepOutputs):
                np.testing.assert_array_equal(getattr(results[0], f.name), getattr(other, f.name))


def test_float32_seconds_would_not_do_for_two_weeks() -> None:
    """Vosk tells word times as float32 seconds since its recogniser was made. Their steps are 60 us after the ten minutes after
    which it is made anew (tests/test_runtime_speech.py), and an eighth of a second after two weeks."""
    from clcr_edge.runtime import speech

    assert np.spacing(np.float32(speech._ROUND_S)) < 1e-4
    assert np.spacing(np.float32(FORTNIGHT_S)) > 0.1
