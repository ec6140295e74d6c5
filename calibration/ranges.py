"""Activation ranges: a bounded histogram per tensor, and from it the 8-bit ranges that four methods find.

    min-max      nothing is clipped
    percentile   0.005 % of the values are clipped at each end
    entropy      the clipped and rounded distribution diverges least (Kullback-Leibler) from the one that was seen
    mse          rounding and clipping errors together are least

Which of them serves a tensor best is measured, see `calibration.choose`. Memory does not grow with the streams: a histogram
of 2,048 bins widens by merging pairs of bins when a value falls outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

METHODS = ("mse", "entropy", "percentile", "min-max")  # where two serve equally well, the first is taken
_BINS = 2_048
_KEEPS = np.linspace(1.0, 0.3, 71)  # shrinkages of min..max that entropy and mse try
_CLIPPED = 5e-5  # percentile: this share at each end

Histogram = npt.NDArray[np.float64]


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

    @property
    def symmetric_scale(self) -> float:
        """Width of one step of the signed codes -127..127 that cover the range."""
        return max(-self.low, self.high, 1e-8) / 127.0


def rounded(values: npt.NDArray[np.floating], found: Range, symmetric: bool) -> npt.NDArray[np.float64]:
    """Values as their 8-bit codes stand for them: unsigned with a zero point, or signed and symmetric."""
    if symmetric:
        return np.asarray(np.clip(np.round(values / found.symmetric_scale), -127, 127) * found.symmetric_scale, np.float64)
    codes = np.clip(np.round(values / found.scale) + found.zero_point, 0, 255)
    return np.asarray((codes - found.zero_point) * found.scale, np.float64)


class RangeObserver:
    """Histogram of everything a tensor was."""

    def __init__(self) -> None:
        self._counts: Histogram = np.zeros(_BINS)
        self._half = 0.0  # the histogram spans -half .. half
        self._low = self._high = 0.0

    def see(self, values: npt.NDArray[np.float32]) -> None:
        """Add one tensor's values. Raises `ValueError` on NaN or infinity."""
        flat = values.ravel()
        low, high = float(flat.min(initial=0.0)), float(flat.max(initial=0.0))
        top = max(-low, high)
        if not np.isfinite(top):
            raise ValueError("NaN or infinite activations")
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._half == 0.0:
            self._half = max(top, 1e-6)
        while top > self._half:  # twice as wide: the old bins, merged in pairs, are the middle half
            middle = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([np.zeros(_BINS // 4), middle, np.zeros(_BINS // 4)])
            self._half *= 2.0
        self._counts += np.histogram(flat, _BINS, (-self._half, self._half))[0]

    def best(self) -> Range:
        """The range with the least squared error, for unsigned codes."""
        return self.candidates()["mse"]

    def candidates(self, symmetric: bool = False) -> dict[str, Range]:
        """The range that each of `METHODS` finds. symmetric: for signed codes -127..127; then low = -high."""
        centres, counts = self._seen()
        if not len(centres):
            return dict.fromkeys(METHODS, Range(-1e-6 if symmetric else 0.0, 1e-6))
        tried = [self._cut(self._low * k, self._high * k, symmetric) for k in _KEEPS]
        errors = [self.error(r, symmetric) for r in tried]
        divergences = [_divergence(centres, counts, r, symmetric) for r in tried]
        below = np.cumsum(counts) / counts.sum()
        low = float(centres[int(np.searchsorted(below, _CLIPPED))])
        high = float(centres[min(int(np.searchsorted(below, 1.0 - _CLIPPED)), len(centres) - 1)])
        return {
            "mse": tried[int(np.argmin(errors))],
            "entropy": tried[int(np.argmin(divergences))],
            "percentile": self._cut(min(low, 0.0), max(high, 0.0), symmetric),
            "min-max": tried[0],
        }

    def error(self, found: Range, symmetric: bool = False) -> float:
        """Mean squared difference between what was seen and its 8-bit codes."""
        centres, counts = self._seen()
        if not len(centres):
            return 0.0
        clipped = np.clip(centres, found.low, found.high) - centres
        step = found.symmetric_scale if symmetric else found.scale
        return float((counts * clipped**2).sum() / counts.sum()) + step**2 / 12.0

    def power(self) -> float:
        """Mean square of what was seen."""
        centres, counts = self._seen()
        return float((counts * centres**2).sum() / counts.sum()) if len(centres) else 0.0

    def _seen(self) -> tuple[Histogram, Histogram]:
        seen = np.flatnonzero(self._counts)
        centres = (seen + 0.5) / _BINS * 2.0 * self._half - self._half
        return np.clip(centres, self._low, self._high), self._counts[seen]

    def _cut(self, low: float, high: float, symmetric: bool) -> Range:
        return Range(-max(-low, high), max(-low, high)) if symmetric else Range(low, high)


def _divergence(centres: Histogram, counts: Histogram, found: Range, symmetric: bool) -> float:
    """KL(seen || coded): every code spreads what it holds evenly over the bins that it stands for; bins beyond the range
    count as the last ones within it."""
    within = np.clip(centres, found.low, found.high)
    codes = np.round(rounded(within, found, symmetric) / (found.symmetric_scale if symmetric else found.scale)).astype(np.int64)
    codes -= codes.min()
    # The distribution that is kept: without its clipped tails. The one that it is compared with keeps them, at the ends.
    inner = np.where((centres >= found.low) & (centres <= found.high), counts, 0.0)
    held, bins = np.bincount(codes, weights=inner), np.bincount(codes, weights=(inner > 0))
    coded = np.where(inner > 0, held[codes] / np.maximum(bins[codes], 1.0), 0.0)
    seen = inner.copy()
    inside = np.flatnonzero(inner > 0)
    if not len(inside):
        return float("inf")
    seen[inside[0]] += counts[: inside[0]].sum()
    seen[inside[-1]] += counts[inside[-1] + 1 :].sum()
    p, q = seen[inside] / seen.sum(), coded[inside] / coded.sum()
    return float((p * np.log(p / np.maximum(q, 1e-12))).sum())
