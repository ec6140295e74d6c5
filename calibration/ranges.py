"""Activation ranges: a bounded histogram per tensor, and from it the 8-bit range with the least squared error.

Memory does not grow with the streams: a histogram of 2,048 bins widens by merging pairs of bins when a value falls outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 2_048


@dataclass(frozen=True)
class Range:
    """What an 8-bit tensor covers. low <= 0 <= high, so that zero (padding, ReLU) is exact."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Width of one step."""
        return max(self.high - self.low, 1e-8) / 255.0

    @property
    def zero_point(self) -> int:
        """The code of 0, 0..255."""
        return int(np.clip(round(-self.low / self.scale), 0, 255))


class RangeObserver:
    """Histogram of everything a tensor was; `best` gives its range."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.float64] = np.zeros(_BINS)
        self._half = 0.0  # the histogram spans -half .. half

    def see(self, values: npt.NDArray[np.float32]) -> None:
        """Add one tensor's values."""
        flat = values.ravel()
        top = float(np.abs(flat).max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError("NaN or infinite activations")
        if self._half == 0.0:
            self._half = max(top, 1e-6)
        while top > self._half:  # twice as wide: the old bins, merged in pairs, are the middle half
            middle = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([np.zeros(_BINS // 4), middle, np.zeros(_BINS // 4)])
            self._half *= 2.0
        self._counts += np.histogram(flat, _BINS, (-self._half, self._half))[0]

    def best(self) -> Range:
        """The range (of 60 shrinkages of min..max) whose rounding and clipping errors together are least."""
        centres = (np.arange(_BINS) + 0.5) / _BINS * 2.0 * self._half - self._half
        seen = np.flatnonzero(self._counts)
        if not len(seen):
            return Range(0.0, 1e-6)
        bin_width = 2.0 * self._half / _BINS
        low = min(0.0, float(centres[seen[0]] - bin_width / 2)) if centres[seen[0]] < 0 else 0.0
        high = max(0.0, float(centres[seen[-1]] + bin_width / 2)) if centres[seen[-1]] > 0 else 0.0
        centres, counts = centres[seen], self._counts[seen]
        best, least = Range(low, high), np.inf
        for keep in np.linspace(1.0, 0.4, 60):
            tried = Range(low * keep, high * keep)
            clipped = np.clip(centres, tried.low, tried.high) - centres
            error = float((counts * clipped**2).sum() + counts.sum() * tried.scale**2 / 12.0)
            if error < least:
                best, least = tried, error
        return best
