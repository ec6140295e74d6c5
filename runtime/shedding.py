"""Decides when to leave out more of the network, and when to take it back: pure, it is handed the times.

Load is what a tick's work takes against the length of a tick; what does not fit adds to a backlog. Both are known from how long
each tick kept its thread busy: work beyond a tick's length is made up in the ticks after it, which then follow without a pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from clcr_edge.runtime.ladder import Ladder


@dataclass(frozen=True)
class SheddingSettings:
    """Loads are shares of a tick.

    high, spell_s, hurry: a load above this for so long, and it goes one rung down; at twice the load in half the time, up to
    hurry times as fast. late_s: so large a backlog counts as a load above high; a smaller one is worked off by the rung that
    keeps up. low, calm_s: so long without a backlog, while the rung above would have stayed below this by its measured cost,
    and it goes one rung up. relapse_s: a step up that has to be taken back within this makes the next calm spell twice as
    long, up to longest_calm_s.
    """

    high: float = 0.95
    spell_s: float = 0.4
    hurry: float = 4.0
    low: float = 0.8
    calm_s: float = 5.0
    late_s: float = 1.0
    relapse_s: float = 30.0
    longest_calm_s: float = 160.0
    most_backlog_s: float = 2.0


def told(ladder: Ladder, rung: int, before: int, load: float) -> str:
    """A change of rung in one line for a person."""
    last, name = len(ladder.rungs) - 1, ladder.rungs[rung].name
    if rung > before:
        return f"ticks take {load:.0%} of their time: shedding, rung {rung} of {last} ({name})"
    return "the whole network again" if rung == 0 else f"calm: back to rung {rung} of {last} ({name})"


class Shedding:
    """The rung of one live stream.

    costs: time of an average tick on each rung as a share of a full one's, rung 0 first (see `Ladder.costs`). tick_s: seconds
    of a tick. Time is counted in ticks seen, so no clock is needed.
    """

    _MEAN = 8  # ticks: even, so that ticks which alternate between two costs do not make the mean swing

    def __init__(self, costs: Sequence[float], tick_s: float, settings: SheddingSettings | None = None) -> None:
        self._costs = tuple(costs)
        self._tick_s = tick_s
        self._settings = settings or SheddingSettings()
        self.reset()

    def reset(self) -> None:
        """Back to the full network."""
        self.rung = 0
        self.backlog_s = 0.0
        self._busy: deque[float] = deque(maxlen=self._MEAN)
        self._high_s = 0.0
        self._calm_s = 0.0
        self._since_up_s = float("inf")
        self._calm_needed_s = self._settings.calm_s

    def restarted(self) -> None:
        """The stream has begun anew at the present: nothing waits any more. The rung stays; a halt says nothing about load."""
        self.backlog_s = 0.0

    @property
    def busy_s(self) -> float:
        """Mean work per tick of late, in seconds."""
        return sum(self._busy) / len(self._busy) if self._busy else 0.0

    @property
    def load(self) -> float:
        """Mean work per tick of late as a share of a tick: above 1 ticks are not finished in time."""
        return self.busy_s / self._tick_s

    @property
    def drops(self) -> bool:
        """Whether the next tick is to pass without a prediction: the last rung does not keep up either, and is behind."""
        return self.rung + 1 == len(self._costs) and self.backlog_s > self._tick_s

    def observe(self, busy_s: float) -> int:
        """Take in how long a tick kept the thread busy; returns the rung for the next one, at most one away from this one."""
        s, tick_s = self._settings, self._tick_s
        self._busy.append(busy_s)
        self.backlog_s = min(max(self.backlog_s + busy_s - tick_s, 0.0), s.most_backlog_s)
        self._since_up_s += tick_s
        if s.relapse_s <= self._since_up_s < float("inf"):  # a step up that held
            self._calm_needed_s, self._since_up_s = s.calm_s, float("inf")
        over = len(self._busy) >= self._MEAN // 2 and (self.load > s.high or self.backlog_s > s.late_s)
        self._high_s = self._high_s + tick_s * min(max(self.load, 1.0), s.hurry) if over else 0.0
        self._calm_s = self._calm_s + tick_s if self._would_fit_above() else 0.0
        if self._high_s >= s.spell_s and self.rung + 1 < len(self._costs):
            if self._since_up_s < s.relapse_s:
                self._calm_needed_s = min(2 * self._calm_needed_s, s.longest_calm_s)
                self._since_up_s = float("inf")
            self._change(+1)
        elif self._calm_s >= self._calm_needed_s and self.rung > 0:
            self._change(-1)
            self._since_up_s = 0.0
        return self.rung

    def _would_fit_above(self) -> bool:
        if self.rung == 0 or len(self._busy) < self._MEAN:
            return False
        ratio = self._costs[self.rung - 1] / max(self._costs[self.rung], 1e-3)
        return self.backlog_s < self._tick_s and self.busy_s * ratio <= self._settings.low * self._tick_s

    def _change(self, by: int) -> None:
        self.rung += by
        self._busy.clear()  # what the last rung took says nothing about this one
        self._high_s = self._calm_s = 0.0
