"""Watches one live source: its state machine on the real clock, its counters, and the one line for each turn of its fate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from clcr_edge.packets import AudioChunk
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.source_machine import Change, SourceMachine, is_away
from clcr_edge.runtime.source_state import SourceState

_GAP_S = 0.030  # a hole shorter than this is jitter of the stamps
_YOUNG_S = 2.0  # a source that has just been opened may still be finding its place
_STALL_TOLD_S = 1.5  # a stall shorter than this is nothing to tell a person
_FUTURE_S = 1.0
_AGAIN_S = 60.0  # how often a person is told of flaws, or of stalls, at the most


class SourceMonitor:
    """Thread-safe. Every method is an input of `SourceMachine` at the present time, or a count.

    name: as notices begin ("camera 0"). notice: called with one line when the source goes, stalls, suffers, or is well again;
    from the thread that found out, never under a lock. gone: the line's words when it goes; may name the {reason}.
    """

    def __init__(
        self,
        name: str,
        *,
        stalled_s: float,
        notice: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        gone: str = "is gone; predictions go on without it while it is looked for",
    ) -> None:
        self.name = name
        self._gone = gone
        self._notice = notice
        self._clock = clock
        self._lock = threading.RLock()
        self._machine = SourceMachine(clock(), stalled_s=stalled_s)
        self._until_s: float | None = None  # of the audio that came
        self._was_away = False
        self._gaps = self._damaged = self._overflows = 0
        self._told_away = self._told_flaw = False
        self._flaw_told_s: float | None = None
        self._stall_s: float | None = None
        self._stall_told_s: float | None = None

    # -- what happens to it ----------------------------------------------------------------------------------------------

    def trying(self) -> None:
        """It is being opened."""
        self._input(lambda now: self._machine.trying(now))

    def opened(self) -> None:
        """It is open."""
        self._input(lambda now: self._machine.opened(now))

    def arrived(self) -> None:
        """Media has come."""
        self._input(lambda now: self._machine.arrived(now))

    def failed(self, reason: str) -> None:
        """It went, or cannot be opened."""
        self._input(lambda now: self._machine.failed(now, reason))

    def flawed(self, reason: str) -> None:
        """Something is wrong with what it gives."""
        self._input(lambda now: self._machine.flawed(now, reason))

    def idle(self) -> None:
        """Nothing is expected of it."""
        self._input(lambda now: self._machine.idle(now))

    def gap(self, reason: str) -> None:
        """Media between this and what came before is missing. An outage's own hole is counted and not told again."""
        with self._lock:
            self._gaps += 1
            outage = self._was_away or self._clock() - self._machine.opened_s < _YOUNG_S
            self._was_away = False
        if not outage:
            self.flawed(reason)

    def damaged(self, reason: str, count: int = 1) -> None:
        """Media came that cannot be used."""
        with self._lock:
            self._damaged += count
        self.flawed(reason)

    def overflow(self) -> None:
        """The device says that it had to throw samples away."""
        with self._lock:
            self._overflows += 1
        self.flawed("the device overflows: the machine is too busy")

    def stamped(self, chunk: AudioChunk) -> bool:
        """Audio was stamped: a hole before it is a gap. False: it would end the session, and must not be handed on."""
        if not np.isfinite(chunk.samples).all():
            self.damaged("samples that are no numbers")
            return False
        if not chunk.end_s < self._clock() + _FUTURE_S:
            self.damaged(f"audio stamped {chunk.end_s - self._clock():.0f} s ahead of its time")
            return False
        with self._lock:
            until_s, self._until_s = self._until_s, chunk.end_s
        if until_s is not None and chunk.t_s - until_s > _GAP_S:
            self.gap(f"{chunk.t_s - until_s:.2f} s of audio are missing")
        return True

    def slower(self, stalled_s: float) -> None:
        """The source turns out to be a slow one: it stalls only after `stalled_s`."""
        with self._lock:
            self._machine.stalled_s = stalled_s

    # -- how it is doing -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> SourceState:
        """Its state now."""
        self._input(lambda now: self._machine.pass_time(now))
        return self._machine.state

    @property
    def alive(self) -> bool:
        """Media comes, or is about to."""
        return not is_away(self.state)

    @property
    def lasted_s(self) -> float:
        """For how long media came after the source was last opened."""
        with self._lock:
            m = self._machine
            if m.last_media_s is None or m.state is SourceState.RECONNECTING:  # the newest try never got so far
                return 0.0
            return max(0.0, m.last_media_s - m.opened_s)

    def health(self, *, drops: int = 0) -> SourceHealth:
        """State and counts; drops: what came and was never used, which the source counts itself."""
        self._input(lambda now: self._machine.pass_time(now))
        with self._lock:
            m = self._machine
            return SourceHealth(
                state=m.state,
                since_s=m.since_s,
                drops=drops,
                gaps=self._gaps,
                reconnects=m.reconnects,
                last_media_s=m.last_media_s,
                reason=m.reason,
                damaged=self._damaged,
                overflows=self._overflows,
            )

    def _input(self, put: Callable[[float], object]) -> None:
        with self._lock:
            now = self._clock()
            put(now)
            lines = [line for change in self._machine.changes() for line in self._lines(change)]
            if self._stall_s is not None and now - self._stall_s >= _STALL_TOLD_S:
                self._stall_s, self._stall_told_s, self._told_away = None, now, True
                lines.append(f"{self.name} has stalled; predictions go on without it")
        if self._notice is not None:
            for line in lines:
                self._notice(line)

    def _lines(self, change: Change) -> list[str]:
        new = change.new
        if new is not SourceState.STALLED:
            self._stall_s = None
        if is_away(new):
            self._was_away = True
        if new is SourceState.LOST and not self._told_away:
            self._told_away = True
            return [f"{self.name} {self._gone.replace('{reason}', change.reason)}"]
        if new is SourceState.STALLED and not self._told_away:
            told_s = self._stall_told_s
            self._stall_s = change.t_s if told_s is None or change.t_s - told_s >= _AGAIN_S else None
        if new is SourceState.LIVE:
            if self._told_away:
                self._told_away = self._told_flaw = False
                return [f"{self.name} is back"]
            if self._told_flaw:
                self._told_flaw = False
                return [f"{self.name} is well again"]
        told_s = self._flaw_told_s
        if new is SourceState.DEGRADED and (told_s is None or change.t_s - told_s >= _AGAIN_S):
            self._flaw_told_s, self._told_flaw = change.t_s, True
            return [f"{self.name} is degraded: {change.reason}"]
        return []
