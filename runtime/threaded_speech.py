"""A recogniser in a thread of its own, watched: one that hangs or fails is replaced by a fresh one, and words come again."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from clcr_edge.packets import AudioChunk, Word
from clcr_edge.runtime import deadline
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.machine import ProcessUse
from clcr_edge.runtime.reopening import Backoff
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.source_state import SourceState

_MAX_WAITING_S = 5.0
_STALLED_S = 2.0  # with audio waiting and no progress
_GIVEN_UP_S = 5.0
_LOADING_S = 120.0
_MAX_HUNG = 3  # recognisers that were given up and still hang; with more, memory would leak away
_SOUND_S = 10.0
_LOOK_S = 0.5  # time that passes between two looks counts up to here: a process that stood still was no stall


class Listening(Protocol):
    """What is needed of a `Recogniser` or a `SpeechProcess`."""

    def ready(self) -> Listening:
        """Wait until it can listen; gives itself."""

    def push(self, chunk: AudioChunk) -> list[Word]:
        """Listen; gives the words that are now sure."""

    def fresh(self) -> Listening:
        """Another one, at the beginning of a stream."""

    @property
    def use(self) -> ProcessUse | None:
        """Of its own process, if it has one."""

    def stop(self) -> None:
        """Have it end, in the midst of a call if that can be. From any thread; does not wait."""

    def close(self) -> None:
        """Free it; no call is under way."""


class _Worker:
    """One recogniser and its thread, from its making to its end."""

    def __init__(self, make: Callable[[], Listening]) -> None:
        self._make = make
        self._recogniser: Listening | None = None
        self._chunks: queue.SimpleQueue[AudioChunk | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.words: deque[Word] = deque(maxlen=256)
        self.waiting_s = 0.0
        self.waiting = 0
        self.done = 0  # chunks
        self.made = False
        self._given_up = threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="speech", daemon=True)
        self.thread.start()

    def push(self, chunk: AudioChunk) -> bool:
        """Queue a chunk; False if too much is waiting already."""
        length_s = len(chunk.samples) / chunk.rate_hz
        with self._lock:
            if self.waiting_s + length_s > _MAX_WAITING_S:
                return False
            self.waiting_s += length_s
            self.waiting += 1
        self._chunks.put(chunk)
        return True

    def _run(self) -> None:
        try:
            recogniser = self._recogniser = self._make()
            if self._given_up.is_set():
                return
            recogniser.ready()
            self.made = True
            while (chunk := self._chunks.get()) is not None and not self._given_up.is_set():
                words = recogniser.push(chunk)
                if self._given_up.is_set():  # the time of these words has gone, and another recogniser has the floor
                    return
                self.words.extend(words)
                with self._lock:
                    self.waiting_s -= len(chunk.samples) / chunk.rate_hz
                    self.waiting -= 1
                self.done += 1
        except Exception as e:  # language goes stale; the other modalities go on
            self.error = e
        finally:
            if self._recogniser is not None:
                self._recogniser.close()

    def end(self) -> None:
        """Let the thread end as soon as it can."""
        self._given_up.set()
        self._chunks.put(None)

    def stop(self) -> None:
        """Have the recogniser end, whatever it is doing."""
        if self._recogniser is not None:
            self._recogniser.stop()

    @property
    def use(self) -> ProcessUse | None:
        """Memory and CPU time of the recogniser's own process, as far as it has one."""
        return None if self._recogniser is None else self._recogniser.use


class ThreadedSpeech:
    """For live use. Neither `push` nor `take` ever waits; a recogniser that falls behind misses audio, which is counted.

    recogniser: the first one; its `fresh()` makes the next, in the next one's thread. One that makes no progress for 5 s
    though audio is waiting is given up and ended, one that raises has ended; each is replaced after a growing wait
    (`Backoff`). One that is loading has two minutes for it. The watching is done by `take`, which the pipeline calls at every
    tick.
    """

    def __init__(
        self,
        recogniser: Listening,
        *,
        notice: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recogniser = recogniser
        self._clock = clock
        self._monitor = SourceMonitor(
            "speech recognition",
            stalled_s=_STALLED_S,
            notice=notice,
            clock=clock,
            gone="has stopped ({reason}); predictions go on without new words until it is back",
        )
        self._backoff = Backoff()
        self._hung: list[_Worker] = []
        self._retry_s = 0.0
        self.chunks_dropped = 0
        self.error: Exception | None = None
        self._monitor.trying()
        self._worker: _Worker | None = None
        self._begin(lambda: recogniser)

    def _begin(self, make: Callable[[], Listening]) -> None:
        self._looked_s = self._clock()
        self._stuck_s = 0.0
        self._done = 0
        self._opened = False
        self._worker = _Worker(make)

    def push(self, chunk: AudioChunk) -> None:
        """Queue a chunk. More than 5 s waiting, or no recogniser: it is dropped, and the utterance ends there."""
        worker = self._worker
        if worker is None:
            self.chunks_dropped += 1
        elif not worker.push(chunk):
            self.chunks_dropped += 1
            if worker.made:
                self._monitor.flawed("it is slower than real time and misses audio")

    def take(self) -> list[Word]:
        """The words since the last call, in the order in which they were said."""
        worker = self._worker
        if worker is None:
            self._replace()
            return []
        ended = worker.error  # before the words are taken: none can follow
        out = []
        while worker.words:
            out.append(worker.words.popleft())
        self._watch(worker, ended)
        return out

    def _watch(self, worker: _Worker, ended: Exception | None) -> None:
        now = self._clock()
        passed_s, self._looked_s = min(now - self._looked_s, _LOOK_S), now
        if worker.made and not self._opened:
            self._opened = True
            self._monitor.opened()
        if worker.done != self._done:
            self._done = worker.done
            self._stuck_s = 0.0
            self._monitor.arrived()
        elif not worker.waiting:
            self._stuck_s = 0.0
            self._monitor.idle()
        else:
            self._stuck_s += passed_s
            if not worker.made:
                self._monitor.idle()
        if ended is not None:
            self._give_up(worker, str(ended) or type(ended).__name__)
            self.error = ended
        elif self._stuck_s >= (limit_s := _GIVEN_UP_S if worker.made else _LOADING_S):
            worker.end()
            worker.stop()
            self._hung = [w for w in self._hung if w.thread.is_alive()] + [worker]
            deadline.give_up("speech recognition", worker.thread)
            self._give_up(worker, f"no progress for {limit_s:g} s")

    def _give_up(self, worker: _Worker, reason: str) -> None:
        worker.end()
        self.chunks_dropped += worker.waiting
        if self._monitor.lasted_s >= _SOUND_S:
            self._backoff.reset()
        self._retry_s = self._clock() + self._backoff.next_s()
        self._worker = None
        self._monitor.failed(reason)

    def _replace(self) -> None:
        if self._clock() < self._retry_s or sum(w.thread.is_alive() for w in self._hung) >= _MAX_HUNG:
            return
        self._monitor.trying()
        self._begin(self._recogniser.fresh)

    @property
    def state(self) -> SourceState:
        """How the recogniser is doing. It is live as long as it keeps up with what it is given, words or none."""
        return self._monitor.state

    @property
    def health(self) -> SourceHealth:
        """The same in numbers; drops: chunks of audio that it never heard."""
        return self._monitor.health(drops=self.chunks_dropped)

    @property
    def use(self) -> ProcessUse | None:
        """Memory and CPU time of the recogniser's own process; None where it has none."""
        return None if self._worker is None else self._worker.use

    def close(self) -> None:
        """Stop; what a recogniser is at has two seconds. A call that cannot be ended is left to its daemon thread."""
        worker = self._worker
        if worker is not None:
            worker.end()
            worker.thread.join(2.0)
            worker.stop()
            worker.thread.join(0.2)
            if worker.thread.is_alive():
                deadline.give_up("speech recognition", worker.thread)
