"""Where the time of a tick goes: fixed-size histograms that each stage fills as it runs, cheap enough to be always on.

    capture   a frame or sample was captured -> the pipeline took it
    decode    compressed or raw media -> RGB frame, 16 kHz mono (waiting for the device is no part of it)
    features  a tick is cut: 96x96 luma, log-mel, n-grams
    engine    the step graph
    sink      the prediction is shown or written

One thread fills a histogram, any thread may read it: a reader may miss the newest value, never more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from clcr_edge.packets import Modality, Prediction, Word

# Upper edges in seconds: from a step on a fast machine to a word that took its time. 40 ms is a tick.
BOUNDS_S = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class LatencyHistogram:
    """Counts over `BOUNDS_S` (a value on an edge belongs below it; the last count is of what lies above) and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration; one below zero (clocks of two devices) counts as none."""
        seconds = max(seconds, 0.0)
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)


def _by(*names: str) -> dict[str, LatencyHistogram]:
    return {name: LatencyHistogram() for name in names}


@dataclass
class StageTimes:
    """The histograms of one session and what feeds it. capture, decode: by source. age: by modality, see `ages`."""

    capture: dict[str, LatencyHistogram] = field(default_factory=lambda: _by("camera", "microphone"))
    decode: dict[str, LatencyHistogram] = field(default_factory=lambda: _by("camera", "microphone"))
    features: LatencyHistogram = field(default_factory=LatencyHistogram)
    engine: LatencyHistogram = field(default_factory=LatencyHistogram)
    sink: LatencyHistogram = field(default_factory=LatencyHistogram)
    age: dict[str, LatencyHistogram] = field(default_factory=lambda: _by(*(m.key for m in Modality)))


def ages(prediction: Prediction, words: Sequence[Word], now_s: float) -> dict[str, float]:
    """Capture-to-prediction age by modality, in seconds, of a prediction that is there at `now_s` on the stream's clock.

    Of vision and audio: how long ago the newest frame or sample that it rests on was captured; a source that is away grows
    old. Of language: how long ago the newest of the words that came with it ended; without a new word it has none.
    """
    found = {}
    for modality in (Modality.VISION, Modality.AUDIO):
        age_s = prediction.age_s[modality.key]
        if age_s is not None:
            found[modality.key] = now_s - prediction.t_s + age_s
    if words:
        found[Modality.LANGUAGE.key] = now_s - max(w.end_s for w in words)
    return found
