"""What crosses a boundary: media going in, ticks inside, predictions coming out.

All times are seconds on one clock (`_s`): the device's monotonic clock when live, the container's clock when a file is
replayed. A packet is stamped when it was captured, never when it arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


class Modality(IntEnum):
    """The three modalities, in the paper's order; the value is the index in every `[..., 3]` array."""

    LANGUAGE = 0
    VISION = 1
    AUDIO = 2

    @property
    def key(self) -> str:
        """Lower-case name, as it stands in JSON, manifests and on the command line."""
        return self.name.lower()


class Level(IntEnum):
    """The three semantic levels of CLCR; the value is the index in every `[..., 3]` array."""

    SHALLOW = 0
    MID = 1
    DEEP = 2

    @property
    def key(self) -> str:
        """Lower-case name, as it stands in JSON and manifests."""
        return self.name.lower()


@dataclass(frozen=True)
class VideoFrame:
    """One camera frame.

    image: uint8 `[H, W, 3]`, RGB, 0..255. t_s: capture time. seq: the source's own counter, rising, gaps allowed.
    """

    image: ByteArray
    t_s: float
    seq: int


@dataclass(frozen=True)
class AudioChunk:
    """A run of mono samples, any length.

    samples: float32 `[N]`, -1..1. rate_hz: samples per second. t_s: capture time of `samples[0]`.
    """

    samples: FloatArray
    rate_hz: int
    t_s: float

    @property
    def end_s(self) -> float:
        """Time just after the last sample."""
        return self.t_s + len(self.samples) / self.rate_hz


@dataclass(frozen=True)
class Word:
    """One recognised word. start_s, end_s: on the stream's clock. confidence: 0..1."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """What the network says about one tick, with everything a person needs to check it.

    t_s: end of the tick, on the stream's clock. tick: 0, 1, 2, ... since the last reset.
    probs: per class, in the order of `classes` of the bundle; sums to 1. label: the most likely class.
    ready: False until every level has seen at least one token of some modality.
    level_weights, modality_weights: sum to 1 (0 where nothing was there). private_gates: 0..1.
    participation: `[level][modality]`, the share of valid tokens that took part in the exchange, 0..1.
    age_s: per modality, how old the newest frame / sample / word used was at `t_s`; None if there was none yet.
    latency_ms: wall time of this step. frame_seq: `seq` of the frame used, None if none was.
    skew_ms: capture time of the frame used less that of the newest sample used; negative: the picture is the older. None
    unless this tick has both. drift_ppm: how much faster the microphone's clock runs than the monotonic one (it is
    corrected for); None for files, and until it is known.
    sources: how each source was doing then, "camera", "microphone" and "speech" as far as there is one: a value of
    `clcr_edge.runtime.source_state.SourceState`. A pipeline fills it in; a session knows no sources.
    rung: how much of the network was left out under load: 0, nothing (see `clcr_edge.runtime.ladder`).
    """

    t_s: float
    tick: int
    label: str
    probs: dict[str, float]
    ready: bool
    level_weights: dict[str, float]
    modality_weights: dict[str, float]
    private_gates: dict[str, float]
    participation: dict[str, dict[str, float]]
    age_s: dict[str, float | None]
    latency_ms: float
    frame_seq: int | None
    skew_ms: float | None = None
    drift_ppm: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    rung: int = 0
