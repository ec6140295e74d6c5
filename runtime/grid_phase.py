"""Where on the clock the ticks of a live run end: just behind a frame's arrival and just as a block of sound is handed over.

Ticks come every 40 ms whatever the sources do, and a sound card hands over its blocks at moments of its own. A tick that ends
just behind a block's last sample waits for the whole next one: up to 5 or 10 ms, by chance, for as long as the run lasts. A
camera of 25 or 50 frames a second costs up to its interval in the same way. So a run watches its sources for a moment before
it begins, and begins where what arrived would have been used soonest.

The grid is never moved while a run lasts. Sources that keep the machine's time (a sound server's, most network cameras') keep
what was gained. Two clocks 50 ppm apart walk through a camera's 40 ms in a quarter of an hour: the gain becomes as large a loss
and comes back, and over hours the mean is that of chance.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

WATCH_S = 0.3  # seven ticks: frames at 30 a second come round to the same place in five
_STEP_S = 0.001
_BLUR = 2  # steps on either side that arrivals may wander by
_LEAST = 3  # frames or blocks, below which nothing is known


@dataclass
class Arrivals:
    """What live sources did while they were watched, in the order of arrival; seconds on the clock of the run.

    sound: (when it arrived, the media time of its end). frames: (when each arrived, when it was captured).
    """

    sound: list[tuple[float, float]] = field(default_factory=list)
    frames: list[tuple[float, float]] = field(default_factory=list)


def best_phase(seen: Arrivals, tick_s: float) -> float | None:
    """The time of a tick's end, modulo `tick_s`, at which the newest sound and the newest frame would have been youngest.

    It is the sum of both ages when the tick can be computed that counts, in the mean over the ticks watched and over 2 ms to
    either side: a source that wanders should not fall over the edge. None where too little was seen to tell.
    """
    seen = Arrivals(seen.sound if len(seen.sound) >= _LEAST else [], seen.frames if len(seen.frames) >= _LEAST else [])
    if not (seen.sound or seen.frames):
        return None
    # Between these times every block and every frame that there was has been seen.
    first_s = max([end_s for _, end_s in seen.sound[:1]] + [arrived_s for arrived_s, _ in seen.frames[:1]])
    last_s = min([end_s for _, end_s in seen.sound[-1:]] + [t_s for _, t_s in seen.frames[-1:]])
    whole = math.floor((last_s - first_s) / tick_s)
    if whole < 1:
        return None
    phases = np.arange(round(tick_s / _STEP_S)) * _STEP_S
    costs = np.array([_ages(seen, first_s + phase + tick_s * np.arange(whole)) for phase in phases])
    wandering = np.mean([np.roll(costs, shift) for shift in range(-_BLUR, _BLUR + 1)], axis=0)
    return float((first_s + phases[int(wandering.argmin())]) % tick_s)


def _ages(seen: Arrivals, ends_s: Iterable[float]) -> float:
    """Mean over ticks that end then of the ages of their newest sound and newest frame once both are there, in seconds."""
    sound_ends_s = [end_s for _, end_s in seen.sound]
    ages = []
    for end_s in ends_s:
        ready_s = end_s
        if seen.sound:
            ready_s = max(end_s, seen.sound[min(bisect_left(sound_ends_s, end_s), len(seen.sound) - 1)][0])
        age_s = ready_s - end_s
        if seen.frames:
            known = (t_s for arrived_s, t_s in seen.frames if t_s <= end_s and arrived_s <= ready_s)
            age_s += ready_s - max(known, default=seen.frames[0][1])
        ages.append(age_s)
    return float(np.mean(ages))


def on_grid(after_s: float, phase_s: float, tick_s: float) -> float:
    """The first time from `after_s` on that is `phase_s` modulo `tick_s`."""
    return after_s + (phase_s - after_s) % tick_s
