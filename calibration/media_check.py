"""Whether calibration media are any good: pictures and sounds came at all, and were more than darkness, silence or NaN."""

from __future__ import annotations

import numpy as np

from clcr_edge.errors import DataError
from clcr_edge.packets import Modality
from clcr_edge.runtime.engine import StepInputs

_FLAT = 1e-3  # a picture (0..1) or a filter bank (log energies) that varies by less than this says nothing
_WORDS = {Modality.VISION: "one even shade", Modality.AUDIO: "silence"}


class MediaCheck:
    """See every tick, then `check`. counts: ticks with a picture, with sound. words: how many words came."""

    def __init__(self) -> None:
        self.counts = {Modality.VISION: 0, Modality.AUDIO: 0}
        self.ticks = self.words = 0
        self._spans = {m: [np.inf, -np.inf] for m in self.counts}

    def see(self, inputs: StepInputs) -> dict[Modality, bool]:
        """One tick; returns which media it has. Raises `DataError` on NaN or infinity."""
        there = dict(zip(self.counts, (bool(p) for p in inputs.present > 0.5), strict=True))
        for modality, value in ((Modality.VISION, inputs.frame), (Modality.AUDIO, inputs.fbank)):
            if not there[modality]:
                continue
            low, high = float(value.min()), float(value.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise DataError(f"calibration tick {self.ticks}: NaN or infinite {modality.key}; record the streams again")
            self.counts[modality] += 1
            span = self._spans[modality]
            span[0], span[1] = min(span[0], low), max(span[1], high)
        self.words += int(inputs.n_new[0, Modality.LANGUAGE])
        self.ticks += 1
        return there

    def check(self) -> None:
        """Raises `DataError` if one cannot calibrate on what was seen. Words may be missing: nothing that is quantised reads
        them, and a quiet room has none."""
        if not self.ticks:
            raise DataError("the calibration streams hold no tick; give recordings of at least some seconds")
        frames, sounds = self.counts.values()
        if not frames or not sounds:
            raise DataError(
                f"the calibration streams hold {frames} ticks with a picture and {sounds} with sound; both are needed"
            )
        for modality, what in _WORDS.items():
            low, high = self._spans[modality]
            if high - low < _FLAT:
                raise DataError(
                    f"the calibration streams' {modality.key} is {what} throughout ({self.counts[modality]} ticks); "
                    "check the device (clcr-edge devices) and record again"
                )
