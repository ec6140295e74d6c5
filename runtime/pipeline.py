"""Sources, recogniser, session: one prediction per tick. Live capture and file replay share every line here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clcr_edge.errors import SourceError
from clcr_edge.packets import Prediction, Word
from clcr_edge.runtime.feed import Feed, Listener
from clcr_edge.runtime.file_feed import FileFeed
from clcr_edge.runtime.live_feed import AudioSource, FrameSource, LiveFeed
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.speech import Speech

_SILENT = Listener()


@dataclass(frozen=True)
class Summary:
    """What a run came to. frames_unused: camera frames that no tick used, for whatever reason."""

    ticks: int
    frames_used: int
    frames_unused: int
    words: int
    ticks_without_audio: int

    @property
    def line(self) -> str:
        """One line for a person."""
        without = counted(self.ticks_without_audio, "tick")
        return (
            f"{counted(self.ticks, 'prediction')}, {counted(self.frames_used, 'frame')} used, {self.frames_unused} not used, "
            f"{without} without audio, {counted(self.words, 'word')}"
        )


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 tick", "2 ticks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Pipeline:
    """Iterate to get predictions; close (or leave the `with` block) to free the sources.

    The words that tick k's audio brings forth enter tick k + 1: recognition runs after the step, so it never delays one.
    """

    def __init__(self, session: Session, feed: Feed, speech: Speech | None = None, listener: Listener | None = None) -> None:
        self.session = session
        self._feed = feed
        self._speech = speech
        self._listener = listener or _SILENT
        self._words = 0
        self.new_words: list[Word] = []  # those that entered the session before the newest prediction
        self._past = Summary(0, 0, 0, 0, 0)

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
    def states(self) -> dict[str, SourceState]:
        """How each source is doing: "camera", "microphone", "speech", as far as there is one."""
        speech = {} if self._speech is None else {"speech": self._speech.state}
        return {**self._feed.states, **speech}

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
        )

    def __iter__(self) -> Iterator[Prediction]:
        """One prediction per tick until the media ends (live: for ever). Raises `SourceError` after a damaged file's end."""
        session, feed, speech, listener = self.session, self._feed, self._speech, self._listener
        session.start(feed.start_s)
        while True:
            batch = feed.collect(session.next_end_s)
            if batch is None:
                break
            if batch.restart_s is not None:
                self._restart(batch.restart_s)
            for frame in batch.frames:
                session.push_frame(frame)
                listener.on_frame(frame)
            for chunk in batch.chunks:
                session.push_audio(chunk)
                listener.on_audio(chunk)
            self.new_words = speech.take() if speech is not None else []
            self._words += len(self.new_words)
            for word in self.new_words:
                session.push_word(word)
                listener.on_word(word)
            yield session.step()
            if speech is not None:
                for chunk in batch.chunks:
                    speech.push(chunk)
        if feed.problem is not None:
            raise SourceError(feed.problem)

    def _restart(self, t_s: float) -> None:
        """Go on at `t_s` with a fresh session: what lay between is gone."""
        frames_dropped = self._feed.frames_dropped
        total = self.summary
        self.session.reset()
        self.session.start(t_s)
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
    """Predictions on files. Real time and `fast` give the same ones if `speech` is a `LockstepSpeech`."""
    tick_s = session.config.tick.seconds
    files = [None if f is None else Path(f) for f in (camera, mic)]
    return Pipeline(session, FileFeed(files[0], files[1], tick_s=tick_s, fast=fast), speech, listener)


def live(
    session: Session,
    *,
    camera: FrameSource | None = None,
    microphone: AudioSource | None = None,
    wake: threading.Event | None = None,
    speech: Speech | None = None,
    listener: Listener | None = None,
) -> Pipeline:
    """Predictions on a camera and a microphone, for ever. wake: the event that both were opened with."""
    feed = LiveFeed(camera, microphone, wake or threading.Event(), tick_s=session.config.tick.seconds)
    return Pipeline(session, feed, speech, listener)
