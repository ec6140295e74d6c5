"""Which media time a live block of samples was captured at: sample counting, held to the device's timestamps.

Arrival times jitter by tens of milliseconds and a sound card's clock drifts (50 ppm is 180 ms in an hour), so neither alone
will do. Samples are counted from an anchor; the anchor follows the running median of the timestamps. Small deviations are
taken out one sample per block, which nobody hears; a hole (a suspended server) moves the clock at once.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_SPAN_S = 1.0  # of the running median
_SLEW_S = 0.002  # deviations up to here are jitter of the estimate
_JUMP_S = 0.050  # beyond this, samples were lost or came twice
_GAP_S = 0.3  # without a block for so long, what comes next may be a backlog


class AudioClock:
    """Turns (samples in a block, capture time, arrival time) into a stamp for the block.

    rate_hz: of the samples. Times are seconds on the monotonic clock.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._anchor_s = math.nan  # time of sample 0 as counted now
        self._count = 0  # samples since the anchor, as emitted
        self._estimates: deque[tuple[float, float]] = deque()  # (arrival, anchor that this block suggests)
        self._arrival_s = -math.inf
        self._settling = False
        self.jumps = 0

    @property
    def end_s(self) -> float:
        """Time just after the last sample stamped; NaN before the first."""
        return self._anchor_s + self._count / self._rate_hz

    def stamp(self, samples: int, captured_s: float, arrival_s: float) -> tuple[float, int] | None:
        """`(t_s, adjust)`: time of the block's first sample, and how many samples to drop (-1), repeat (+1) or neither (0).

        captured_s: the device's claim of when the first sample was captured. It cannot be later than the arrival less
        the block's own length; some drivers stamp the block's end. None: the block is backlog from a stall, drop it.
        """
        length_s = samples / self._rate_hz
        captured_s = min(captured_s, arrival_s - length_s)
        since_s, self._arrival_s = arrival_s - self._arrival_s, arrival_s
        if math.isnan(self._anchor_s):
            self._anchor_s = captured_s
        elif since_s > _GAP_S:
            self._settling = True
        if self._settling:
            if since_s < 0.5 * length_s or since_s > _GAP_S:
                return None  # blocks of a backlog come at once; their time has gone
            self._settling = False
            self._estimates.clear()
        estimate = captured_s - self._count / self._rate_hz
        self._estimates.append((arrival_s, estimate))
        while self._estimates[0][0] < arrival_s - _SPAN_S:
            self._estimates.popleft()
        deviation = median(e for _, e in self._estimates) - self._anchor_s
        adjust = 0
        if abs(deviation) > _JUMP_S:
            self._anchor_s += deviation
            self._estimates.clear()
            self.jumps += 1
        elif deviation > _SLEW_S:
            adjust = 1
        elif deviation < -_SLEW_S:
            adjust = -1
        t_s = self.end_s
        # An adjusted block still covers its own `samples` in the device's count: the estimates are of that count.
        self._count += samples + adjust
        if adjust:
            self._estimates = deque((a, e - adjust / self._rate_hz) for a, e in self._estimates)
        return t_s, adjust
