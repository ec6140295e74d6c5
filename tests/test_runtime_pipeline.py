"""The pipeline's laws: fast and real-time replay agree, words enter after the audio that made them, live never drifts."""

from __future__ import annotations

import dataclasses
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, noise
from live_rig import counter_image, read_counter, shared_file

from clcr_edge import bundle
from clcr_edge.config import TickConfig
from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.background import LiveRunner
from clcr_edge.runtime.feed import Batch, Listener
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.live_feed import LiveFeed
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import Pipeline, live, replay
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.ticker import Ticker


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundle.read(tiny_bundle))


def same(predictions: list[Prediction]) -> list[Prediction]:
    """Without the one field that is a measurement."""
    return [dataclasses.replace(p, latency_ms=0.0) for p in predictions]


class ScriptedSpeech:
    """A recogniser that hears a word in every fifth chunk, `slow_s` after being given it."""

    state = SourceState.LIVE
    health = SourceHealth(SourceState.LIVE, 0.0)

    def __init__(self, slow_s: float = 0.0) -> None:
        self._slow_s = slow_s
        self._count = 0
        self._words: list[Word] = []
        self.closed = False

    def push(self, chunk: AudioChunk) -> None:
        time.sleep(self._slow_s)
        self._count += 1
        if self._count % 5 == 0:
            self._words.append(Word(f"word{self._count}", chunk.t_s, chunk.end_s))

    def take(self) -> list[Word]:
        words, self._words = self._words, []
        return words

    def close(self) -> None:
        self.closed = True


def test_real_time_and_fast_replay_give_identical_predictions(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=1.0, audio=noise(1.0, 44_100), rate_hz=44_100, fps=30)
    runs = []
    for fast, slow_s in ((True, 0.0), (False, 0.0), (True, 0.01)):
        begun = time.monotonic()
        with replay(Session(engine), camera=clip, mic=clip, speech=ScriptedSpeech(slow_s), fast=fast) as pipeline:
            runs.append(same(list(pipeline)))
        if not fast:
            assert time.monotonic() - begun >= 0.99
    assert runs[0] == runs[1] == runs[2]
    # AAC pads its last block, so the sound may outlast the picture by a tick or two.
    assert 25 <= len(runs[0]) <= 27
    assert [p.tick for p in runs[0]] == list(range(len(runs[0])))
    assert all(b.t_s - a.t_s == pytest.approx(0.04) for a, b in pairwise(runs[0]))
    assert pipeline.summary.frames_used + pipeline.summary.frames_unused == 30


def test_words_enter_the_tick_after_the_audio_that_made_them(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", video_s=0, audio=noise(1.0))
    speech = ScriptedSpeech()
    arrivals = []
    with replay(Session(engine), mic=clip, speech=speech, fast=True) as pipeline:
        for p in pipeline:
            arrivals += [(p.tick, w.text, p.age_s["language"]) for w in pipeline.new_words]
    assert speech.closed
    # The fifth chunk is tick 4's; its word is in tick 5, where it is one tick old.
    assert [(tick, text) for tick, text, _ in arrivals] == [(5, "word5"), (10, "word10"), (15, "word15"), (20, "word20")]
    assert all(age == pytest.approx(0.04) for _, _, age in arrivals)


def test_two_files_share_one_clock(engine: OnnxEngine, tmp_path: Path) -> None:
    sound = noise(1.0)
    silent = make_clip(tmp_path / "a.mp4", video_s=1.0)
    song = make_clip(tmp_path / "a.wav", video_s=0, audio=sound)
    frames: list[VideoFrame] = []
    chunks: list[AudioChunk] = []
    listener = Listener(on_frame=frames.append, on_audio=chunks.append)
    with replay(Session(engine), camera=silent, mic=song, fast=True, listener=listener) as pipeline:
        predictions = list(pipeline)
    assert len(predictions) == 25
    assert [read_counter(f.image) for f in frames] == list(range(25))
    assert (frames[0].t_s, chunks[0].t_s) == (0.0, 0.0)
    assert all(p.age_s["audio"] == 0.0 for p in predictions)


def test_the_longer_file_decides_when_it_ends(engine: OnnxEngine, tmp_path: Path) -> None:
    silent = make_clip(tmp_path / "a.mp4", video_s=0.4)
    song = make_clip(tmp_path / "a.wav", video_s=0, audio=noise(1.21))
    with replay(Session(engine), camera=silent, mic=song, fast=True) as pipeline:
        predictions = list(pipeline)
    assert len(predictions) == 31  # 1.21 s: the last tick is not full, and has no audio
    assert predictions[-1].age_s["audio"] == pytest.approx(0.04)
    assert predictions[-1].frame_seq is None


def test_a_file_cut_off_gives_its_predictions_then_the_error(engine: OnnxEngine, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mp4", video_s=4.0, options={"movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    predictions: list[Prediction] = []
    with replay(Session(engine), camera=cut, fast=True) as pipeline, pytest.raises(SourceError, match=r"cut\.mp4"):
        predictions.extend(pipeline)
    assert 20 < len(predictions) < 95


@pytest.mark.parametrize("name", ["data/grid_clips/bbaf2n.mpg", "data/nasa_av/nasa_13013.mp4"])
def test_real_clips_give_a_prediction_per_tick(engine: OnnxEngine, name: str) -> None:
    clip = shared_file(name)
    with replay(Session(engine), camera=clip, mic=clip, fast=True) as pipeline:
        predictions = list(pipeline)
    expected = {"bbaf2n.mpg": 75, "nasa_13013.mp4": 327}[clip.name]
    assert [p.tick for p in predictions] == list(range(expected))
    seen = [p.frame_seq for p in predictions]
    assert all(b is not None and a is not None and b >= a for a, b in pairwise(seen))


# -- live, with sources that a test can drive --------------------------------------------------------------------------


class Clock:
    """Time that passes when somebody waits for it."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0.0 < seconds < 0.08
        self.now += seconds


class Wake(threading.Event):
    """The wake event of such a time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._clock.now += min(timeout, 0.005) + 1e-6
        return True


class Sources:
    """A camera of 30 fps and a microphone of 20 ms blocks that arrive `lag_s` late, until they are switched off."""

    def __init__(self, clock: Clock, lag_s: float = 0.001) -> None:
        self._clock = clock
        self._lag_s = lag_s
        self._begun = clock.now
        self._frames = self._blocks = 0
        self.hears = self.sees = True
        self.settled_s = 0.0  # how much later the stamps are from the third block on
        self.alive = True
        self.frames_dropped = 0
        self.closed = 0

    def frames(self) -> list[VideoFrame]:
        out = []
        while (t_s := self._begun + self._frames / 30) <= self._clock.now:
            if self.sees:
                out.append(VideoFrame(counter_image(self._frames, 24, 32), t_s, self._frames))
            self._frames += 1
        return out

    def blocks(self) -> list[AudioChunk]:
        out = []
        while (t_s := self._begun + self._blocks * 0.02) + 0.02 + self._lag_s <= self._clock.now:
            if self.hears:
                settled_s = self.settled_s if self._blocks >= 2 else 0.0
                out.append(AudioChunk(np.zeros(320, np.float32), 16_000, t_s + settled_s))
            self._blocks += 1
        return out

    def close(self) -> None:
        self.closed += 1


class Camera:
    def __init__(self, sources: Sources) -> None:
        self.take = sources.frames
        self.close = sources.close
        self.frames_dropped = 3
        self.alive = True
        self.state = SourceState.LIVE
        self.health = SourceHealth(SourceState.LIVE, 0.0, drops=3)


class Microphone:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.take = sources.blocks
        self.close = sources.close

    @property
    def alive(self) -> bool:
        return self._sources.alive

    @property
    def state(self) -> SourceState:
        return SourceState.LIVE if self.alive else SourceState.STALLED

    @property
    def health(self) -> SourceHealth:
        return SourceHealth(self.state, 0.0, gaps=2)


def rig(lag_s: float = 0.001, *, microphone: bool = True) -> tuple[Clock, Sources, LiveFeed]:
    clock = Clock()
    sources = Sources(clock, lag_s)
    camera, ears = Camera(sources), Microphone(sources) if microphone else None
    feed = LiveFeed(camera, ears, Wake(clock), clock=clock, sleep=clock.sleep)
    return clock, sources, feed


def lateness(clock: Clock, feed: LiveFeed, ticks: int, first: int = 0) -> tuple[list[float], list[Batch]]:
    late, batches = [], []
    for k in range(first, first + ticks):
        end_s = feed.start_s + (k + 1) / 25
        batches.append(feed.collect(end_s))
        late.append(clock.now - end_s)
    return late, batches


def test_a_tick_is_taken_as_soon_as_its_audio_is_there() -> None:
    clock, sources, feed = rig(lag_s=0.03)
    late, batches = lateness(clock, feed, 100)
    assert max(late) < 0.03 + 0.02 + 0.01
    assert feed.audio_missed == 0
    assert sum(len(c.samples) for b in batches for c in b.chunks) >= 100 * 640
    assert feed.states == {"camera": SourceState.LIVE, "microphone": SourceState.LIVE}
    sources.alive = False
    assert feed.states["microphone"] is SourceState.STALLED
    feed.close()
    assert sources.closed == 2


@pytest.mark.parametrize("settled_ms", [-6, -1, 1, 4, 6, 9, 12])
@pytest.mark.parametrize("begun_ms", [0, 3, 7, 14])
def test_a_clock_that_settles_takes_no_sound_from_the_ticks(settled_ms: int, begun_ms: int) -> None:
    """The ticker puts chunks end to end whose stamps wander by milliseconds; the feed may not think that more is there."""
    clock, sources, feed = rig()
    sources.settled_s, sources._begun = settled_ms / 1e3, sources._begun + begun_ms / 1e3
    ticker = Ticker(TickConfig())
    ticker.start(feed.start_s)
    heard = []
    for batch in lateness(clock, feed, 60)[1]:
        for chunk in batch.chunks:
            ticker.push_audio(chunk)
        heard.append(ticker.cut().fbank is not None)
    assert sum(heard) >= 58, heard  # the first began late; one may hold the hole of a jump


@pytest.mark.parametrize("begun_ms", [0, 3, 9, 14, 19])
def test_ticks_begin_where_they_wait_least_for_sound(begun_ms: int) -> None:
    """Blocks are of 20 ms here: ticks laid by chance would wait 10 ms longer in the mean."""
    clock, sources, feed = rig(lag_s=0.001)
    sources._begun += begun_ms / 1e3
    sources.sees = False
    late, _ = lateness(clock, feed, 100)
    assert np.mean(late) < 0.008  # the clock of these tests runs in steps of 5 ms


def test_what_is_said_while_the_sources_are_watched_is_handed_over() -> None:
    """A recogniser may hear a word in it, though no tick does."""
    clock, sources, feed = rig()
    clock.now += 1.0  # the microphone was opened, and a model loaded
    start_s = feed.start_s
    batch = feed.collect(start_s + 0.04)
    said = sum(len(chunk.samples) for chunk in batch.chunks) / 16_000
    assert said == pytest.approx(clock.now - 50.0, abs=0.03)
    assert len(batch.frames) + feed.frames_dropped - 3 == sources._frames


def test_sound_that_comes_late_is_waited_for_from_the_first_tick() -> None:
    """Bluetooth: 0.25 s, which the watch has measured."""
    clock, _, feed = rig(lag_s=0.25)
    lateness(clock, feed, 50)
    assert feed.audio_missed == 0


def test_a_run_that_stood_still_goes_on_along_its_own_ticks() -> None:
    clock, _, feed = rig()
    lateness(clock, feed, 10)
    clock.now += 7.0
    batch = feed.collect(feed.start_s + 11 / 25)
    assert batch.restart_s is not None
    assert batch.restart_s >= clock.now - 0.1
    assert (batch.restart_s - feed.start_s + 1e-6) % 0.04 == pytest.approx(0.0, abs=1e-5)


def test_without_a_microphone_ticks_end_on_time_and_never_drift() -> None:
    clock, _, feed = rig(microphone=False)
    late, batches = lateness(clock, feed, 250)
    assert min(late) >= 0
    assert max(late) < 0.01
    assert sum(len(b.frames) for b in batches) == pytest.approx(300, abs=2)


def test_a_microphone_that_falls_silent_costs_the_grace_and_a_dead_one_nothing() -> None:
    clock, sources, feed = rig()
    lateness(clock, feed, 50)
    sources.hears = False
    late, _ = lateness(clock, feed, 10, first=50)
    assert all(0.1 < x < 0.2 for x in late)
    assert feed.audio_missed == 10
    sources.alive = False
    late, _ = lateness(clock, feed, 40, first=60)
    assert max(late[5:]) < 0.01
    sources.hears = sources.alive = True
    late, batches = lateness(clock, feed, 50, first=100)
    assert max(late) < 0.05
    assert batches[-1].chunks


def test_a_slow_microphone_is_waited_for() -> None:
    clock, _, feed = rig(lag_s=0.25)  # Bluetooth
    lateness(clock, feed, 200)
    missed = feed.audio_missed
    late, _ = lateness(clock, feed, 100, first=200)
    assert feed.audio_missed == missed
    assert max(late) < 0.3


def test_after_a_standstill_it_starts_anew_at_the_present(engine: OnnxEngine) -> None:
    clock, sources, feed = rig()
    notices: list[str] = []
    pipeline = Pipeline(Session(engine), feed, listener=Listener(on_notice=notices.append))
    predictions = []
    for p in pipeline:
        predictions.append(p)
        if len(predictions) == 50:
            clock.now += 3_600.0  # the laptop slept
            sources._blocks += 180_000
            sources._frames += 108_000
        if len(predictions) == 80:
            break
    assert [p.tick for p in predictions] == [*range(50), *range(30)]
    assert predictions[50].t_s == pytest.approx(clock.now - 29 * 0.04, abs=0.1)
    assert predictions[60].age_s["audio"] == 0.0
    assert len(notices) == 1
    assert pipeline.summary.ticks == 80
    assert pipeline.health.restarts == 1


def test_what_the_camera_dropped_is_counted(engine: OnnxEngine) -> None:
    clock, _, feed = rig()
    pipeline = Pipeline(Session(engine), feed)
    for p in pipeline:
        if p.tick == 99:
            break
    s = pipeline.summary
    assert s.ticks == s.frames_used == 100
    assert s.frames_unused == pytest.approx(20 + 3 + 10, abs=2)  # ten while the sources were watched
    assert clock.now - feed.start_s == pytest.approx(4.0, abs=0.1)


def test_health_and_predictions_say_how_the_sources_are(engine: OnnxEngine) -> None:
    _, sources, feed = rig()
    pipeline = Pipeline(Session(engine), feed, ScriptedSpeech())
    for p in pipeline:
        if p.tick == 9:
            assert p.sources == {"camera": "live", "microphone": "live", "speech": "live"}
            sources.hears = False
        if p.tick == 19:
            sources.alive = False
        if p.tick == 29:
            break
    assert p.sources == {"camera": "live", "microphone": "stalled", "speech": "live"}
    health = pipeline.health
    assert health.sources["camera"].drops == 3
    assert (health.sources["microphone"].gaps, health.sources["microphone"].state) == (2, SourceState.STALLED)
    assert set(health.sources) == set(p.sources)
    assert 8 <= health.audio_missed <= 10
    assert health.ticks_without_audio == pytest.approx(20, abs=1)
    assert (health.restarts, health.engine_retries, health.words_dropped) == (0, 0, 0)


def test_files_are_live(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=0.4, audio=noise(0.4))
    with replay(Session(engine), camera=clip, mic=clip, fast=True) as pipeline:
        assert {tuple(p.sources.items()) for p in pipeline} == {(("camera", "live"), ("microphone", "live"))}
        assert {h.state for h in pipeline.health.sources.values()} == {SourceState.LIVE}


def test_live_runs_on_the_real_clock(engine: OnnxEngine) -> None:
    begun = time.monotonic()
    with live(Session(engine)) as pipeline:
        for p in pipeline:
            if p.tick == 14:
                break
    assert 0.58 < time.monotonic() - begun < 3.0
    assert p.t_s == pytest.approx(begun + 0.6, abs=0.3)


# -- in a thread -------------------------------------------------------------------------------------------------------


def test_a_runner_gives_the_newest_prediction_and_ends_by_itself(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=0.8)
    with LiveRunner(replay(Session(engine), camera=clip)) as runner:
        assert runner.latest is None or runner.latest.tick >= 0
        got: list[Prediction] = []
        while (p := runner.next(got[-1] if got else None, timeout_s=10)) is not None:
            got.append(p)
    assert runner.error is None
    assert not runner.running
    assert got[-1].tick == 19
    assert all(b.tick > a.tick for a, b in pairwise(got))


def test_a_runner_keeps_the_error_for_its_owner(engine: OnnxEngine, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mp4", video_s=4.0, options={"movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with LiveRunner(replay(Session(engine), camera=cut, fast=True)) as runner:
        while runner.next(runner.latest, timeout_s=10) is not None:
            pass
    assert isinstance(runner.error, SourceError)
    assert runner.latest is not None


def test_a_runner_can_be_stopped(engine: OnnxEngine) -> None:
    runner = LiveRunner(live(Session(engine)))
    runner.start()
    assert runner.next(None, timeout_s=10) is not None
    begun = time.monotonic()
    runner.stop()
    assert time.monotonic() - begun < 5
    assert not runner.running
