"""The state machine of one source: what happened to it and when goes in, how it is doing comes out. No thread, no clock.

    starting ----media----> live <---calm / flaw---> degraded
       |  \\                  |                        |
       |   nothing for stalled_s: stalled <-----------+      any ----failed----> lost
       |                       |                             lost ---trying----> reconnecting
       +--<---opened-----------+--<--------------------------------opened-------+
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clcr_edge.runtime.source_state import SourceState

S = SourceState
_AWAY = (S.STALLED, S.LOST, S.RECONNECTING)


@dataclass(frozen=True)
class Change:
    """One transition: at `t_s` the source went from `old` to `new`, because of `reason` ("" if there is nothing to say)."""

    t_s: float
    old: SourceState
    new: SourceState
    reason: str


class SourceMachine:
    """Inputs carry their time, seconds on one clock; one that is older than an input before it counts as being as new.

    stalled_s: without media for so long, a source counts as stalled. calm_s: how long after its last flaw it stays degraded.
    Every input first lets the time pass: the states do not depend on how often anybody looks.
    """

    def __init__(self, now_s: float, *, stalled_s: float, calm_s: float = 2.0) -> None:
        self.stalled_s = stalled_s
        self._calm_s = calm_s
        self._now_s = now_s
        self._life_s = now_s  # newest sign of life: opened, media, or nothing being owed
        self._flawed_s = -math.inf
        self._changes: list[Change] = []
        self._opened = 0
        self.state = S.STARTING
        self.since_s = now_s
        self.reason = ""
        self.opened_s = -math.inf
        self.last_media_s: float | None = None

    @property
    def reconnects(self) -> int:
        """How often it was opened after the first time."""
        return max(0, self._opened - 1)

    def trying(self, t_s: float) -> None:
        """An attempt to open it begins. The first one is a part of starting."""
        t_s = self.pass_time(t_s)
        if self.state is not S.STARTING or self._opened:
            self._go(t_s, S.RECONNECTING)
        self._life_s = t_s

    def opened(self, t_s: float) -> None:
        """It is open; media may come."""
        t_s = self.pass_time(t_s)
        self._opened += 1
        self._life_s = self.opened_s = t_s
        self._flawed_s = -math.inf
        self._go(t_s, S.STARTING)

    def arrived(self, t_s: float) -> None:
        """Media has come."""
        t_s = self.pass_time(t_s)
        self._life_s = self.last_media_s = t_s
        if self.state is not S.DEGRADED:
            self._go(t_s, S.LIVE)

    def flawed(self, t_s: float, reason: str) -> None:
        """Media comes, but something is wrong with it. Says nothing about a source that is away."""
        t_s = self.pass_time(t_s)
        if self.state in (S.LIVE, S.DEGRADED):
            self._flawed_s = t_s
            self._go(t_s, S.DEGRADED, reason)

    def failed(self, t_s: float, reason: str) -> None:
        """It has said that it went, or could not be opened."""
        self._go(self.pass_time(t_s), S.LOST, reason)

    def idle(self, t_s: float) -> None:
        """Nothing is expected of it: that nothing comes means nothing."""
        self._life_s = t_s = self.pass_time(t_s)
        if self.state is S.STALLED:
            self._go(t_s, S.STARTING if self.last_media_s is None else S.LIVE)

    def pass_time(self, t_s: float) -> float:
        """Let the time pass up to `t_s`; gives the time that it is now."""
        self._now_s = t_s = max(t_s, self._now_s)
        calm_s = self._flawed_s + self._calm_s
        stalled_s = self._life_s + self.stalled_s
        if self.state is S.DEGRADED and t_s >= calm_s and calm_s <= stalled_s:
            self._go(calm_s, S.LIVE)
        if self.state in (S.STARTING, S.LIVE, S.DEGRADED) and t_s > stalled_s:
            self._go(stalled_s, S.STALLED, f"nothing for {self.stalled_s:g} s")
        return t_s

    def changes(self) -> list[Change]:
        """The transitions since the last call; of many that nobody fetched, the newest."""
        changes, self._changes = self._changes, []
        return changes

    def _go(self, t_s: float, state: SourceState, reason: str = "") -> None:
        if state is not self.state:
            self._changes = [*self._changes[-15:], Change(t_s, self.state, state, reason)]
            self.state, self.since_s = state, t_s
        self.reason = reason


def is_away(state: SourceState) -> bool:
    """Nothing comes from a source in this state, and something should."""
    return state in _AWAY
