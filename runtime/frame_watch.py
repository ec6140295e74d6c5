"""What a stream of frames shows of its own health: slower than it used to be, pauses, pictures that stand still."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import numpy as np

from clcr_edge.packets import ByteArray

_SPAN_S = 2.0  # over which a rate is taken
_KEPT = 15  # rates that make the usual one
_SLOW = 0.45  # of the usual rate: below half, with room for a camera that halves its rate in the dark
_PAUSE = 3.0  # usual intervals between two frames
_STILL_S = 3.0
_LIVELY = 50  # pairs of unlike frames in a row that make a source one whose frames always differ
_GRID = 16  # every 16th pixel: noise shows everywhere, and a look costs little


class FrameWatch:
    """Fed with every frame; no clock, no thread.

    Frozen: a real sensor never gives the same picture twice, so identical frames for 3 s are a fault, but only of a source
    that has shown 50 unlike frames in a row since it stood still last. A drawn scene, a screen or a test picture that rests
    now and then is none.
    """

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=_KEPT)
        self.slow: str | None = None
        self.reset()

    def reset(self) -> None:
        """The source was opened anew; what is usual for it stays known."""
        self._seen_s = math.nan
        self._begun_s = math.nan
        self._count = 0
        self._last: ByteArray | None = None
        self._unlike = 0
        self._lively = False
        self._still_s = math.nan
        self.slow = None
        self.frozen: str | None = None
        self.pause_s: float | None = None

    @property
    def usual_hz(self) -> float | None:
        """Frames per second as they usually come; None in the first seconds."""
        return median(self._rates) if len(self._rates) >= 3 else None

    def see(self, t_s: float, image: ByteArray) -> None:
        """A frame has come: `slow` and `frozen` (a line or None) and `pause_s` (the pause before it, if long) are as of now."""
        usual_hz = self.usual_hz
        since_s = t_s - self._seen_s
        self._seen_s = t_s
        self.pause_s = since_s if usual_hz is not None and since_s > _PAUSE / usual_hz else None
        self._time(t_s, usual_hz)
        self._compare(t_s, image)

    def _time(self, t_s: float, usual_hz: float | None) -> None:
        if math.isnan(self._begun_s):
            self._begun_s, self._count = t_s, 0
            return
        self._count += 1
        span_s = t_s - self._begun_s
        if span_s < _SPAN_S:
            return
        rate_hz = self._count / span_s
        self._begun_s, self._count = t_s, 0
        if usual_hz is not None and rate_hz < _SLOW * usual_hz:
            self.slow = f"{rate_hz:.3g} frames/s, usually {usual_hz:.3g}"
        else:
            self.slow = None
            self._rates.append(rate_hz)

    def _compare(self, t_s: float, image: ByteArray) -> None:
        now = image[::_GRID, ::_GRID].copy()
        same = self._last is not None and np.array_equal(now, self._last)
        self._last = now
        if not same:
            self._unlike += 1
            self._lively = self._lively or self._unlike >= _LIVELY
            if self.frozen is not None or self._unlike == 1:
                self._lively = False  # it has stood still: what comes next must show first that it does so no more
            self._still_s, self.frozen = math.nan, None
            return
        if math.isnan(self._still_s):
            self._still_s = t_s
        self._unlike = 0
        if self._lively and t_s - self._still_s >= _STILL_S:
            self.frozen = f"the picture has stood still for {_STILL_S:g} s"
