"""Camera and microphone as a feed: ticks end by the wall clock, wait a moment for their audio, and never drift."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Protocol

from clcr_edge.packets import AudioChunk, VideoFrame
from clcr_edge.runtime.feed import Batch
from clcr_edge.runtime.grid_phase import WATCH_S, Arrivals, best_phase, on_grid
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.ticker import JITTER_S

_EARLY_S = 0.004  # before a tick's end to begin listening for its sound: more than stamps wander, less than a block's length


class LiveSource(Protocol):
    """What a feed asks of a source, whatever it gives; see `WatchedSource`."""

    @property
    def alive(self) -> bool: ...
    @property
    def state(self) -> SourceState: ...
    @property
    def health(self) -> SourceHealth: ...
    def close(self) -> None: ...


class FrameSource(LiveSource, Protocol):
    """A live camera; see `Camera`."""

    @property
    def frames_dropped(self) -> int: ...
    def take(self) -> list[VideoFrame]: ...


class AudioSource(LiveSource, Protocol):
    """A live microphone; see `Microphone`."""

    def take(self) -> list[AudioChunk]: ...


class LiveFeed:
    """Hands over what has arrived as soon as audio through the tick's end is there.

    The first look at `start_s` watches the sources for a moment and lays the ticks where they wait least (`grid_phase`).

    wake: the event that the sources set. grace_s: how long past the usual delay of the microphone a tick waits for its
    audio; without a microphone that is alive it does not wait. behind_s: after a halt longer than this (a suspended
    process) the session starts anew at the present instead of computing ticks that nobody waits for.
    """

    problem = None

    def __init__(
        self,
        camera: FrameSource | None,
        microphone: AudioSource | None,
        wake: threading.Event,
        *,
        tick_s: float = 0.04,
        grace_s: float = 0.12,
        behind_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._camera = camera
        self._microphone = microphone
        self._sleep = sleep
        self._wake = wake
        self._tick_s = tick_s
        self._grace_s = grace_s
        self._behind_s = behind_s
        self._clock = clock
        self._until_s: float | None = None  # audio has arrived up to here, whichever way a ticker joins it
        self._joined_s = -math.inf  # the same if chunks whose stamps wander are put end to end
        self._lag_s = 0.0  # how late audio usually comes; Bluetooth may take 0.2 s
        self._start_s: float | None = None
        self._early = Batch()  # what arrived while the sources were watched: a recogniser may hear a word in it
        self._passed_over = 0
        self.audio_missed = 0  # ticks that went on without the audio of a living microphone

    @property
    def start_s(self) -> float:
        """When tick 0 begins; a moment after the first time this is asked."""
        if self._start_s is None:
            self._start_s = self._watched_start()
        return self._start_s

    def _watched_start(self) -> float:
        seen, early, begun_s = Arrivals(), self._early, self._clock()
        self._drain_audio(early)  # what has been waiting: when it arrived is not known
        self._pass_over(early)
        while self._hears or self._camera is not None:
            self._wake.clear()
            heard = len(early.chunks)
            self._drain_audio(early)
            taken = self._pass_over(early)
            now = self._clock()
            seen.frames += [(now, t_s) for t_s in taken]
            if len(early.chunks) > heard:
                seen.sound.append((now, early.chunks[-1].end_s))
                # Sound that comes late is watched for longer, so that it and the pictures of one time are known.
                lag_s = median(arrived_s - end_s for arrived_s, end_s in seen.sound)
                self._lag_s = min(max(lag_s, 0.0), WATCH_S)
            until_s = begun_s + WATCH_S + self._lag_s
            if now >= until_s:
                break
            self._wake.wait(until_s - now)
        now, phase_s = self._clock(), best_phase(seen, self._tick_s)
        start_s = now if phase_s is None else on_grid(now, phase_s, self._tick_s)
        self._until_s, self._joined_s = None, -math.inf  # a ticker joins those that are not over when it starts
        self._believe([chunk for chunk in early.chunks if chunk.end_s > start_s])
        return start_s

    def _pass_over(self, early: Batch) -> list[float]:
        """Take what the camera has; keep the newest frame, the picture that stands when the run begins, and count the others.
        Gives the times of all."""
        frames = [] if self._camera is None else self._camera.take()
        self._passed_over += max(len(early.frames) + len(frames) - 1, 0)
        early.frames = (early.frames + frames)[-1:]
        return [frame.t_s for frame in frames]

    @property
    def _hears(self) -> bool:
        return self._microphone is not None and self._microphone.alive

    @property
    def frames_dropped(self) -> int:
        """Frames the camera overwrote before they were taken, or that were over before tick 0 began."""
        return self._passed_over + (self._camera.frames_dropped if self._camera is not None else 0)

    @property
    def states(self) -> dict[str, SourceState]:
        """What each source says of itself."""
        return {name: source.state for name, source in self._sources().items()}

    @property
    def health(self) -> dict[str, SourceHealth]:
        """The same in numbers."""
        return {name: source.health for name, source in self._sources().items()}

    def _sources(self) -> dict[str, LiveSource]:
        sources: dict[str, LiveSource | None] = {"camera": self._camera, "microphone": self._microphone}
        return {name: source for name, source in sources.items() if source is not None}

    @property
    def drift_ppm(self) -> float | None:
        """What the microphone's clock is off by, where the source measures it."""
        return getattr(self._microphone, "drift_ppm", None)

    def collect(self, end_s: float) -> Batch:
        """Everything that has arrived, once the tick ending at `end_s` is complete or given up. Never None."""
        now = self._clock()
        batch, self._early = self._early, Batch()
        if now - end_s > self._behind_s:
            batch.restart_s = on_grid(now, end_s % self._tick_s, self._tick_s)
            end_s = batch.restart_s + self._tick_s
        # No tick is complete before it ends: blocks and frames that come until then need not wake anybody.
        if end_s - _EARLY_S > now:
            self._sleep(end_s - _EARLY_S - now)
        while True:
            self._wake.clear()  # before looking, so that nothing that arrives meanwhile is slept over
            self._drain_audio(batch)
            now = self._clock()
            hears = self._hears
            if hears and self._until_s is not None and self._until_s >= end_s:
                break
            deadline_s = end_s + (self._lag_s + self._grace_s if hears else 0.0)
            if now >= deadline_s:
                self.audio_missed += hears
                break
            self._wake.wait(deadline_s - now)
        if self._camera is not None:
            batch.frames += self._camera.take()
        return batch

    def _drain_audio(self, batch: Batch) -> None:
        if self._microphone is None:
            return
        chunks = self._microphone.take()
        if not chunks:
            return
        batch.chunks += chunks
        self._believe(chunks)
        lag_s = min(max(self._clock() - chunks[-1].end_s, 0.0), 0.5)
        self._lag_s += 0.02 * (lag_s - self._lag_s)

    def _believe(self, chunks: list[AudioChunk]) -> None:
        """Until when there is sound, once these have been put behind the others."""
        for chunk in chunks:
            start_s = self._joined_s if abs(chunk.t_s - self._joined_s) <= JITTER_S else chunk.t_s
            self._joined_s = start_s + chunk.end_s - chunk.t_s
            # A ticker puts the first chunk where its stamp says and the others behind it. Were the stamps alone believed, a
            # clock that settled 4 ms later than it began would end every tick 4 ms short of its sound, for a whole run.
            self._until_s = min(chunk.end_s, self._joined_s)

    def close(self) -> None:
        """Close both sources."""
        for source in (self._camera, self._microphone):
            if source is not None:
                source.close()
