"""Which media time a live block of samples was captured at: sample counting, held to the device's timestamps.

Arrival times jitter by tens of milliseconds and a sound card's clock drifts (50 ppm is 180 ms in an hour), so neither alone
will do. Samples are counted from an anchor; the anchor follows the running median of the timestamps. Small deviations are
taken out one sample per block, which nobody hears; a hole (a suspended server) moves the clock at once.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from clcr_edge.runtime.drift import DriftMeter

_SPAN_S = 1.0  # of the running median, and of a clock's youth
_JUMP_S = 0.050  # beyond this, samples were lost or came twice
_GAP_S = 0.3  # without a block for so long, what comes next may be a backlog


class AudioClock:
    """Turns (samples in a block, capture time, arrival time) into a stamp for the block.

    rate_hz: of the samples. Times are seconds on the monotonic clock. slack_s: deviations up to here are left alone as
    jitter of the timestamps. backlog_first: the source begins with samples that it had stored (a network stream, while it
    was probed); they are dropped like those of a stall.
    """

    def __init__(self, rate_hz: int, *, slack_s: float = 0.002, backlog_first: bool = False) -> None:
        self._rate_hz = rate_hz
        self._slack_s = slack_s
        self._anchor_s = math.nan  # time of sample 0 as counted now
        self._count = 0  # samples since the anchor, as emitted
        self._estimates: deque[tuple[float, float]] = deque()  # (arrival, anchor that this block suggests)
        self._shift_s = 0.0  # what the device's stamps are too late by
        self._arrival_s = -math.inf
        self._young_until_s = math.inf
        self._settling = backlog_first
        self._adjusted = 0  # samples repeated less samples dropped so far
        self._drift = DriftMeter()
        self.jumps = 0

    @property
    def end_s(self) -> float:
        """Time just after the last sample stamped; NaN before the first."""
        return self._anchor_s + self._count / self._rate_hz

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the device's clock runs than the monotonic one; negative: slower; None until it can be told."""
        return self._drift.ppm

    def stamp(self, samples: int, captured_s: float, arrival_s: float) -> tuple[float, int] | None:
        """`(t_s, adjust)`: time of the block's first sample, and how many samples to drop (-1), repeat (+1) or neither (0).

        captured_s: the device's claim of when the first sample was captured. None: the block is backlog from a stall or
        from before the start; drop it.
        """
        length_s = samples / self._rate_hz
        since_s, self._arrival_s = arrival_s - self._arrival_s, arrival_s
        if since_s > _GAP_S and not math.isnan(self._anchor_s):
            self._settling = True
        if self._settling:
            if since_s < 0.75 * length_s or since_s > _GAP_S:
                return None  # a backlog's blocks come at once, or nearly so on a busy machine; their time has gone
            self._settling = False
            self._restart_estimates(arrival_s)
            self._drift.restart()
        # A block cannot have begun less than its own length before it arrived. Drivers that stamp a block's end break
        # that; the largest breach seen is by how much they stamp too late. It is a constant, so jitter stays out.
        breach_s = captured_s - (arrival_s - length_s)
        self._shift_s = min(max(self._shift_s, breach_s), length_s)
        estimate = captured_s - self._shift_s - self._count / self._rate_hz
        if math.isnan(self._anchor_s):
            self._anchor_s = estimate
            self._restart_estimates(arrival_s)
        self._estimates.append((arrival_s, estimate))
        while self._estimates[0][0] < arrival_s - _SPAN_S:
            self._estimates.popleft()
        adjust = self._correct(arrival_s)
        t_s = self.end_s
        # An adjusted block still covers its own `samples` in the device's count: the estimates are of that count.
        self._count += samples + adjust
        if adjust:
            self._adjusted += adjust
            self._estimates = deque((a, e - adjust / self._rate_hz) for a, e in self._estimates)
        return t_s, adjust

    def _restart_estimates(self, arrival_s: float) -> None:
        self._estimates.clear()
        self._young_until_s = arrival_s + _SPAN_S

    def _correct(self, arrival_s: float) -> int:
        """Bring the anchor nearer to the estimates: at once, or by the number of samples that is returned."""
        middle = median(e for _, e in self._estimates)
        deviation = middle - self._anchor_s
        # The estimates are of the count as emitted; what was repeated or dropped on the way is the device's drift as well.
        # The shift is learnt as time goes on, and is none.
        if arrival_s >= self._young_until_s:
            self._drift.add(arrival_s, middle + self._shift_s + self._adjusted / self._rate_hz)
        if abs(deviation) > _JUMP_S:
            self._anchor_s += deviation
            self._restart_estimates(arrival_s)
            self._drift.restart()
            self.jumps += 1
        elif abs(deviation) > self._slack_s:
            if arrival_s >= self._young_until_s:
                return 1 if deviation > 0 else -1
            self._anchor_s += deviation  # the first blocks were late; nothing is gained by keeping to them
        return 0
