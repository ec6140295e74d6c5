"""Where on the clock the ticks of a live run end: just after a frame was taken and just as a block of sound is handed over.

Ticks come every 40 ms whatever the sources do, and a sound card hands over its blocks at moments of its own. A tick that ends
just behind a block's last sample waits for the whole next one: up to 10 ms, by chance, for as long as the run lasts. A camera
of 25 or 50 frames a second costs up to its interval in the same way. So a run watches its sources for a moment before it
begins, and begins where what arrived would have been used soonest. Clocks drift: with 50 ppm between the sound card and the
machine the gain is gone after minutes and comes back after as many. The grid is never moved while it runs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

WATCH_S = 0.3  # seven ticks: frames at 30 a second come round to the same place in five
_STEP_S = 0.001
_BLUR = 2  # steps on either side that arrivals may wander by
_LEAST = 3  # frames or blocks, below which nothing is known


@dataclass
class Arrivals:
    """What live sources did while they were watched, in the order of arrival; seconds on the clock of the run.

    sound: (when it arrived, the media time of its end). frames: when each was captured.
    """

    sound: list[tuple[float, float]] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)


def best_phase(seen: Arrivals, tick_s: float) -> float | None:
    """The time of a tick's end, modulo `tick_s`, at which ticks would have waited least for sound and shown the newest frames.

    It is the sum of both in the mean over the ticks watched, as bad as it gets 2 ms to either side: a source that wanders may
    not fall over the edge. None where too little was seen to tell.
    """
    hears, sees = len(seen.sound) >= _LEAST, len(seen.frames) >= _LEAST
    if not (hears or sees):
        return None
    times = [[end_s for _, end_s in seen.sound]] * hears + [seen.frames] * sees
    first_s = max(of_source[0] for of_source in times)
    whole = math.floor((min(of_source[-1] for of_source in times) - first_s) / tick_s)
    if whole < 1:
        return None
    phases = np.arange(round(tick_s / _STEP_S)) * _STEP_S
    costs = np.array([_cost(seen, first_s + phase + tick_s * np.arange(whole), hears, sees) for phase in phases])
    worst = np.max([np.roll(costs, shift) for shift in range(-_BLUR, _BLUR + 1)], axis=0)
    return float((first_s + phases[int(worst.argmin())]) % tick_s)


def _cost(seen: Arrivals, ends_s: Sequence[float] | np.ndarray, hears: bool, sees: bool) -> float:
    """Mean over ticks that end then of the wait for their sound, and of their newest frame's age, in seconds."""
    ends_of_sound = [end_s for _, end_s in seen.sound]
    total = 0.0
    for end_s in ends_s:
        if hears:
            total += seen.sound[min(bisect_left(ends_of_sound, end_s), len(seen.sound) - 1)][0] - end_s
        if sees:
            total += end_s - seen.frames[max(bisect_right(seen.frames, end_s) - 1, 0)]
    return total / len(ends_s)


def on_grid(after_s: float, phase_s: float, tick_s: float) -> float:
    """The first time from `after_s` on that is `phase_s` modulo `tick_s`."""
    return after_s + (phase_s - after_s) % tick_s
