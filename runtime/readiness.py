"""One word about a running pipeline, for a watchdog or a load balancer: starting, ready, degraded, stalled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clcr_edge.runtime.source_state import SourceState

STALLED_S = 2.0  # without a prediction for so long; live ticks come every 40 ms
_FEEDS = {"camera": "vision", "microphone": "audio", "speech": "language"}


@dataclass(frozen=True)
class Readiness:
    """status: see `readiness`. missing: the modalities whose source is not live, in the order of the sources."""

    status: str
    missing: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """`ready`, `degraded: audio`, `stalled`, `starting`."""
        return f"{self.status}: {', '.join(self.missing)}" if self.status == "degraded" else self.status

    @property
    def serving(self) -> bool:
        """Whether predictions come and rest on something."""
        return self.status in ("ready", "degraded")


def readiness(states: Mapping[str, SourceState], prediction_age_s: float | None) -> Readiness:
    """The readiness of a pipeline from its sources' states and the time since its newest prediction (None: there was none).

    starting: no prediction yet. stalled: none for two seconds, or no camera and no microphone is left to predict from.
    degraded: a source is not live. ready: all are.
    """
    if prediction_age_s is None:
        return Readiness("starting")
    missing = tuple(_FEEDS.get(name, name) for name, state in states.items() if state is not SourceState.LIVE)
    # A degraded source still gives media, late or with holes; the others give none.
    gives = [s in (SourceState.LIVE, SourceState.DEGRADED) for name, s in states.items() if name != "speech"]
    if prediction_age_s > STALLED_S or not any(gives):
        return Readiness("stalled", missing)
    return Readiness("degraded" if missing else "ready", missing)
