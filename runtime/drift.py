"""How fast a device's clock runs against the monotonic one, in parts per million, from the stamps of its blocks."""

from __future__ import annotations

from collections import deque
from statistics import linear_regression

_EVERY_S = 1.0
_LEAST_S = 20.0  # stamps that wander by 0.1 ms leave about 2 ppm of doubt after that long
_SPAN_S = 300.0


class DriftMeter:
    """Fits a line through (time, how far the samples counted lag behind it), one point a second, five minutes of them."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=int(_SPAN_S / _EVERY_S))
        self._ppm: float | None = None

    def restart(self) -> None:
        """Samples were lost: counting begins anew. The last figure stands until there is a new one."""
        self._points.clear()

    def add(self, t_s: float, lag_s: float) -> None:
        """Note that at `t_s` the samples counted since the start lag behind the device's stamps by `lag_s` (any constant)."""
        if self._points and t_s - self._points[-1][0] < _EVERY_S:
            return
        self._points.append((t_s, lag_s))
        begun_s = self._points[0][0]
        if t_s - begun_s < _LEAST_S:
            return
        slope = linear_regression([t - begun_s for t, _ in self._points], [lag for _, lag in self._points]).slope
        self._ppm = -slope * 1e6

    @property
    def ppm(self) -> float | None:
        """Positive: the device's clock is fast. None until there is enough to go by."""
        return self._ppm
