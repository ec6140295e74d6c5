"""Sources, recogniser, session: one prediction per tick. Live capture and file replay share every line here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from clcr_edge.errors import SourceError
from clcr_edge.packets import Prediction, Word
from clcr_edge.runtime.feed import Batch, Feed, Listener
from clcr_edge.runtime.health import Health
from clcr_edge.runtime.live_feed import AudioSource, FrameSource, LiveFeed
from clcr_edge.runtime.machine import ProcessUse
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.shedding import Shedding, told
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.speech import Speech
from clcr_edge.runtime.stages import ages
from clcr_edge.runtime.threaded_speech import ThreadedSpeech
from clcr_edge.runtime.ticker import SessionStats

_SILENT = Listener()


@dataclass(frozen=True)
class Summary:
    """What a run came to. frames_unused: camera frames that no tick used, for whatever reason."""

    ticks: int
    frames_used: int
    frames_unused: int
    words: int
    ticks_without_audio: int
    ticks_skipped: int = 0

    @property
    def line(self) -> str:
        """One line for a person."""
        without = counted(self.ticks_without_audio, "tick")
        made = counted(self.ticks - self.ticks_skipped, "prediction")
        skipped = f", {counted(self.ticks_skipped, 'tick')} skipped under load" if self.ticks_skipped else ""
        return (
            f"{made}, {counted(self.frames_used, 'frame')} used, {self.frames_unused} not used, "
            f"{without} without audio, {counted(self.words, 'word')}{skipped}"
        )


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 tick", "2 ticks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Pipeline:
    """Iterate to get predictions; close (or leave the `with` block) to free the sources.

    The words that tick k's audio brings forth enter tick k + 1: recognition runs after the step, so it never delays one.

    now: the stream's clock, None where media do not run in real time. ages: capture-to-prediction age of the newest
    prediction by modality, see `stages.ages`; empty without a clock. late: ticks whose prediction came more than one tick
    after their end. shedding: picks the session's rung by how long ticks take; None: the session's rung is left alone.
    """

    def __init__(
        self,
        session: Session,
        feed: Feed,
        speech: Speech | None = None,
        listener: Listener | None = None,
        now: Callable[[], float | None] | None = None,
        shedding: Shedding | None = None,
    ) -> None:
        self.session = session
        self._feed = feed
        self._speech = speech
        self._listener = listener or _SILENT
        self._shedding = shedding
        self._skipped = 0
        self._words = 0
        self.new_words: list[Word] = []  # those that entered the session before the newest prediction
        self._past = Summary(0, 0, 0, 0, 0)
        self._restarts = 0
        self._past_stats = SessionStats()
        self._now = now or (lambda: None)
        self.ages: dict[str, float] = {}
        self.late = 0

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sources and the recogniser."""
        self._feed.close()
        if self._speech is not None:
            self._speech.close()

    @property
    def speech_use(self) -> ProcessUse | None:
        """Memory and CPU time of the recogniser's own process; None where it has none."""
        return self._speech.use if isinstance(self._speech, ThreadedSpeech) else None

    @property
    def states(self) -> dict[str, SourceState]:
        """How each source is doing: "camera", "microphone", "speech", as far as there is one."""
        speech = {} if self._speech is None else {"speech": self._speech.state}
        return {**self._feed.states, **speech}

    @property
    def health(self) -> Health:
        """How the sources and the pipeline are doing, in numbers."""
        speech = {} if self._speech is None else {"speech": self._speech.health}
        stats = self.stats
        return Health(
            sources={**self._feed.health, **speech},
            audio_missed=self._feed.audio_missed,
            ticks_without_audio=self.summary.ticks_without_audio,
            restarts=self._restarts,
            engine_retries=stats.engine_retries,
            words_dropped=stats.words_dropped,
        )

    @property
    def now_s(self) -> float | None:
        """The stream's clock; None where media do not run in real time."""
        return self._now()

    @property
    def stats(self) -> SessionStats:
        """The session's counts since the pipeline was made."""
        past, now = self._past_stats, self.session.stats
        return SessionStats(**{f.name: getattr(past, f.name) + getattr(now, f.name) for f in fields(SessionStats)})

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """What was captured and not used, by (what, why)."""
        s, sources = self.stats, self.health.sources
        found = {
            ("frames", "superseded"): s.frames_unused,
            ("frames", "late"): s.frames_late,
            ("frames", "overwritten"): self._feed.frames_dropped,
            ("audio_samples", "late"): s.samples_late,
            ("words", "queue_full"): s.words_dropped,
        }
        if "camera" in sources:
            found["frames", "damaged"] = sources["camera"].damaged
        if "microphone" in sources:
            found["audio_blocks", "unused"] = sources["microphone"].drops
            found["audio_blocks", "overflow"] = sources["microphone"].overflows
        if "speech" in sources:
            found["speech_chunks", "recogniser_behind"] = sources["speech"].drops
        return found

    @property
    def summary(self) -> Summary:
        """Counts since the pipeline was made."""
        s, past = self.session.stats, self._past
        tick_samples = self.session.config.tick.samples
        return Summary(
            ticks=past.ticks + s.ticks,
            frames_used=past.frames_used + s.frames_used,
            frames_unused=past.frames_unused + s.frames_unused + s.frames_late + self._feed.frames_dropped,
            words=self._words,
            ticks_without_audio=past.ticks_without_audio + s.ticks - s.samples_used // tick_samples,
            ticks_skipped=self._skipped,
        )

    def __iter__(self) -> Iterator[Prediction]:
        """One prediction per tick until the media ends (live: for ever). Raises `SourceError` after a damaged file's end."""
        session, feed, speech, listener = self.session, self._feed, self._speech, self._listener
        session.start(feed.start_s)
        listener.on_start(feed.start_s)
        carried: list[Word] = []  # of ticks that made no prediction
        while True:
            batch = feed.collect(session.next_end_s)
            if batch is None:
                break
            begun_s = time.perf_counter()
            if batch.restart_s is not None:
                self._restart(batch.restart_s)
            self._count_waiting(batch)
            for frame in batch.frames:
                session.push_frame(frame)
                listener.on_frame(frame)
            for chunk in batch.chunks:
                session.push_audio(chunk)
                listener.on_audio(chunk)
            words = speech.take() if speech is not None else []
            self.new_words = [*carried, *words]
            carried = []
            self._words += len(words)
            for word in words:
                session.push_word(word)
                listener.on_word(word)
            if session.due and not (self._shedding is not None and self._shedding.drops):
                sources = {name: state.value for name, state in self.states.items()}
                prediction = replace(session.step(), drift_ppm=feed.drift_ppm, sources=sources)
                listener.on_prediction(prediction)
                self._count_age(prediction)
                yield prediction
            else:
                session.skip()
                listener.on_skip(session.rung)
                self._skipped += 1
                carried = self.new_words
            if speech is not None:
                for chunk in batch.chunks:
                    speech.push(chunk)
            self._shed(time.perf_counter() - begun_s)
        if feed.problem is not None:
            raise SourceError(feed.problem)

    def _count_waiting(self, batch: Batch) -> None:
        now_s = self._now()
        if now_s is None:
            return
        if batch.frames:
            self.session.times.capture["camera"].add(now_s - batch.frames[-1].t_s)
        if batch.chunks:
            self.session.times.capture["microphone"].add(now_s - batch.chunks[-1].end_s)

    def _count_age(self, prediction: Prediction) -> None:
        now_s = self._now()
        if now_s is None:
            return
        self.ages = ages(prediction, self.new_words, now_s)
        for modality, age_s in self.ages.items():
            self.session.times.age[modality].add(age_s)
        self.late += now_s - prediction.t_s > self.session.config.tick.seconds

    def _shed(self, busy_s: float) -> None:
        """Choose the next tick's rung by how long this one took, whoever read its prediction included."""
        if self._shedding is None or self.session.ladder is None:
            return
        load, before = self._shedding.load, self.session.rung
        self.session.rung = self._shedding.observe(busy_s)
        if self.session.rung != before:
            self._listener.on_notice(told(self.session.ladder, self.session.rung, before, load))

    def _restart(self, t_s: float) -> None:
        """Go on at `t_s` with a fresh session: what lay between is gone."""
        frames_dropped = self._feed.frames_dropped
        total = self.summary
        self._restarts += 1
        self._past_stats = replace(self.stats, words_waiting=0)
        rung = self.session.rung
        self.session.reset()
        self.session.start(t_s)
        self.session.rung = rung
        if self._shedding is not None:
            self._shedding.restarted()
        self._listener.on_start(t_s)
        self._past = Summary(total.ticks, total.frames_used, total.frames_unused - frames_dropped, 0, total.ticks_without_audio)
        self._listener.on_notice("this process stood still for seconds; predictions start anew")


def replay(
    session: Session,
    *,
    camera: Path | str | None = None,
    mic: Path | str | None = None,
    speech: Speech | None = None,
    fast: bool = False,
    listener: Listener | None = None,
) -> Pipeline:
    """Predictions on files. Real time and `fast` give the same ones if `speech` is a `LockstepSpeech`; nothing is shed."""
    from clcr_edge.runtime.file_feed import FileFeed  # with FFmpeg's libraries, tens of megabytes

    tick_s = session.config.tick.seconds
    files = [None if f is None else Path(f) for f in (camera, mic)]
    feed = FileFeed(files[0], files[1], tick_s=tick_s, fast=fast, times=session.times)
    return Pipeline(session, feed, speech, listener, lambda: feed.now_s)


def live(
    session: Session,
    *,
    camera: FrameSource | None = None,
    microphone: AudioSource | None = None,
    wake: threading.Event | None = None,
    speech: Speech | None = None,
    listener: Listener | None = None,
) -> Pipeline:
    """Predictions on a camera and a microphone, for ever. wake: the event that both were opened with. A session with a ladder
    sheds when its ticks take too long."""
    shedding = None if session.ladder is None else Shedding(session.ladder.costs, session.config.tick.seconds)
    feed = LiveFeed(camera, microphone, wake or threading.Event(), tick_s=session.config.tick.seconds)
    return Pipeline(session, feed, speech, listener, time.monotonic, shedding)
