"""How fast a device's clock runs against the monotonic one, in parts per million, from the stamps of its blocks."""

from __future__ import annotations

from collections import deque
from statistics import median

_EVERY_S = 1.0
_LEAST_S = 20.0  # stamps that wander by 0.1 ms leave about 2 ppm of doubt after that long
_SPAN_S = 300.0


class DriftMeter:
    """Of how far the samples counted lag behind their stamps, one point a second, five minutes of them: the median of the
    slopes between points half of that apart. A few seconds on a machine too busy to keep time do not show in it."""

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
        if t_s - self._points[0][0] < _LEAST_S:
            return
        points, half = list(self._points), len(self._points) // 2
        slopes = [(late - early) / (t - s) for (s, early), (t, late) in zip(points, points[half:], strict=False)]
        self._ppm = -median(slopes) * 1e6

    @property
    def ppm(self) -> float | None:
        """Positive: the device's clock is fast. None until there is enough to go by."""
        return self._ppm
