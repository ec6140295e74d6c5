"""What every live source tells of itself, whatever it reads."""

from __future__ import annotations

from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.source_state import SourceState


class WatchedSource:
    """A source that a `SourceMonitor` watches. drops: frames, blocks or chunks that came and were never used."""

    _monitor: SourceMonitor
    drops = 0

    @property
    def alive(self) -> bool:
        """Media has arrived lately, or is about to."""
        return self._monitor.alive

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return self._monitor.state

    @property
    def health(self) -> SourceHealth:
        """The same in numbers."""
        return self._monitor.health(drops=self.drops)
