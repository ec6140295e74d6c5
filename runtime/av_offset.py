"""How much later than the sound the picture is stamped, from events that were both seen and heard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clcr_edge.runtime.av_events import Ear, Eye, Times

LEAST_EVENTS = 3
WIDEST_S = 0.45  # a picture half a second old counts as none
_SLACK_S = 0.030  # of a pair's difference, besides the frame that it may fall anywhere into

Kind = Literal["flash", "clap"]
# A flash is seen by the next frame, half a frame late on average. Hands that have stopped show one frame later than that.
_LATE_FRAMES: dict[Kind, float] = {"flash": 0.5, "clap": 1.0}


@dataclass(frozen=True)
class AvOffset:
    """A measured offset. offset_s: picture less sound; positive: the picture is stamped later. spread_s: standard deviation
    of the single events. events: how many. kind: what they were. frame_s: time between two frames."""

    offset_s: float
    spread_s: float
    events: int
    kind: Kind
    frame_s: float

    @property
    def doubt_s(self) -> float:
        """Standard error of the offset: an event falls anywhere into its frame, however well the few measured agree. How
        hands come to rest is not known to better than a third of a frame."""
        by_chance_s = max(self.spread_s, self.frame_s / math.sqrt(12)) / math.sqrt(self.events)
        return math.hypot(by_chance_s, self.frame_s / 3 if self.kind == "clap" else 0.0)


def measure(eye: Eye, ear: Ear) -> AvOffset | None:
    """The offset by flashes, or by claps where those go together better with the sound; None while neither does."""
    heard, frame_s = ear.onsets(), eye.frame_s
    if math.isnan(frame_s):
        return None
    flash = offset_of(eye.flashes(), heard, "flash", frame_s)
    clap = offset_of(eye.claps(), heard, "clap", frame_s)
    if flash is None or clap is None:
        return flash or clap
    # Light that comes and goes moves the picture as well; so a clap has to be clearly the better.
    return flash if flash.events >= 0.8 * clap.events else clap


def offset_of(seen: Times, heard: Times, kind: Kind, frame_s: float) -> AvOffset | None:
    """Match events that were seen with events that were heard.

    The offset is the one at which most of them meet; of almost equally good ones the smallest. None if fewer than three
    meet, or fewer than half of those that could.
    """
    if not seen.size or not heard.size:
        return None
    differences = np.sort((seen[:, None] - heard[None, :]).ravel())
    differences = differences[np.abs(differences) <= WIDEST_S + frame_s]
    width_s = frame_s + _SLACK_S
    groups = [differences[(differences >= d) & (differences <= d + width_s)] for d in differences]
    if not groups:
        return None
    # Events are at least a quarter of a second apart, so that a group of this width holds none of them twice.
    most = max(len(g) for g in groups)
    if most < LEAST_EVENTS or most < 0.5 * min(len(seen), len(heard)):
        return None
    near = [g for g in groups if len(g) >= max(LEAST_EVENTS, most - 1)]
    smallest = min(abs(float(g.mean())) for g in near)
    group = max((g for g in near if abs(float(g.mean())) <= smallest + width_s), key=lambda g: (len(g), -float(g.std())))
    offset_s = float(group.mean()) - _LATE_FRAMES[kind] * frame_s
    return AvOffset(offset_s, float(group.std(ddof=1)), len(group), kind, frame_s)
