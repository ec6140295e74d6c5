"""From PortAudio's clock to the monotonic one. On Linux PortAudio reads the wall clock, which people and NTP may set.

The difference between the two is therefore measured anew at every callback: a step of the wall clock moves both sides of
the sum and cancels. A step that falls just between PortAudio's reading and ours shows as a time that cannot be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_LATEST_S = 0.3  # a callback may have waited so long for the interpreter, and the device's own reading still be believed
_LEAK = 1e-3  # seconds a second: a steady clock that drifts against ours is followed upward


class HostClock:
    """Stamps one stream's callbacks. now, wall: the machine's monotonic and wall clock; tests bring their own."""

    def __init__(self, now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._now = now
        self._wall = wall
        self._is_wall: bool | None = None
        self._offset_s = math.inf  # ours minus the device's, where that is no wall clock
        self._stamped_s = 0.0  # when that was last looked at

    def stamp(self, current_s: float, adc_s: float) -> tuple[float, float]:
        """`(captured_s, arrival_s)` of a block, monotonic.

        current_s: the device's time at the callback. adc_s: its time of the block's first sample; 0 where the driver knows
        none, and the block then counts as captured when it arrived.
        """
        now, wall = self._now(), self._wall()
        if self._is_wall is None:
            self._is_wall = abs(current_s - wall) < 1.0
        if self._is_wall:
            arrival_s = current_s + (now - wall)
        else:
            # The smallest difference seen is the truest: the others had to wait for the interpreter.
            self._offset_s = min(self._offset_s + _LEAK * (now - self._stamped_s), now - current_s)
            self._stamped_s = now
            arrival_s = current_s + self._offset_s
        if not -1e-3 <= now - arrival_s <= _LATEST_S:
            arrival_s = now
        delay_s = max(current_s - adc_s, 0.0) if adc_s > 0 else 0.0
        return arrival_s - delay_s, arrival_s
