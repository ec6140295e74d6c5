"""How a source is doing, in one word, as predictions, metrics and displays report it."""

from __future__ import annotations

from enum import Enum


class SourceState(str, Enum):
    """The states of a source.

    starting: opened, nothing has come yet. live: media arrives as it should. degraded: it arrives, but late, slow, damaged
    or with holes. stalled: nothing arrives, though the device has not said that it went. lost: it went away. reconnecting:
    it is being opened anew.
    """

    STARTING = "starting"
    LIVE = "live"
    DEGRADED = "degraded"
    STALLED = "stalled"
    LOST = "lost"
    RECONNECTING = "reconnecting"
