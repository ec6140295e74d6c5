"""One sample of a data set: what the network gets of each modality, and what it should say.

A modality comes raw (frames, samples, words) or as a sequence of features, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from clcr_edge.errors import DataError
from clcr_edge.packets import ByteArray, FloatArray, Modality, Word

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Task(Enum):
    """What is asked of a sample.

    CLASSIFICATION: one class for all of it. REGRESSION: one number for all of it. SEGMENTS: one class for each of its steps
    (the ten seconds of an AVE clip, the utterances of a video).
    """

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SEGMENTS = "segments"


@dataclass(frozen=True, eq=False)
class Clip:
    """Raw media of one sample; time 0 is the sample's own beginning.

    frames: uint8 `[T, S, S, 3]` RGB, evenly spaced, T = 0 without a picture. frames_per_s: their rate. audio: float32 `[N]`,
    mono, -1..1, N = 0 without sound. rate_hz: samples per second. words: with their times, where these are known.
    """

    frames: ByteArray
    frames_per_s: float
    audio: FloatArray
    rate_hz: int
    words: tuple[Word, ...] = ()

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise DataError(f"frames {self.frames.shape} {self.frames.dtype}: give uint8 [T, S, S, 3]")
        if self.audio.ndim != 1 or self.audio.dtype != np.float32:
            raise DataError(f"audio {self.audio.shape} {self.audio.dtype}: give float32 [N]")


@dataclass(frozen=True, eq=False)
class Features:
    """A sequence of features of one modality. values: float32 `[T, D]`, finite; mask: bool `[T]`, True where there is one."""

    values: FloatArray
    mask: BoolArray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32 or self.mask.shape != self.values.shape[:1]:
            found = f"features {self.values.shape} {self.values.dtype}, mask {self.mask.shape}"
            raise DataError(f"{found}: give float32 [T, D] and bool [T]")


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample. name: unique in its data set. group: the speaker or video that must not cross a split.

    target: an int (class) for `Task.CLASSIFICATION`, a float for `Task.REGRESSION`, int64 `[S]` for `Task.SEGMENTS`.
    clip: raw media, None where the set holds features. features: by modality; a modality that is missing is not in it.
    text: the transcript of the whole sample where there is one. texts, step_names: a transcript and a name per segment.
    """

    name: str
    group: str
    target: int | float | IntArray
    clip: Clip | None = None
    features: Mapping[Modality, Features] = field(default_factory=dict)
    text: str = ""
    texts: tuple[str, ...] = ()
    step_names: tuple[str, ...] = ()
