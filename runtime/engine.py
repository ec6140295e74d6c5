"""What an engine is: something that runs the step graph. Sessions know this and nothing about ONNX Runtime or TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clcr_edge.config import StudentConfig
from clcr_edge.errors import StreamError
from clcr_edge.packets import FloatArray, Modality

# By name. A mapping, not a dict: an engine may keep its states on its own device and fetch them only when asked.
State = Mapping[str, FloatArray]


@dataclass(frozen=True)
class StepInputs:
    """The inputs of one tick. Shapes as in `clcr_edge.export.step.example_inputs`.

    frame float32 `[1, 1, S, S]`, 0..1. fbank float32 `[F, n_mels]`. ngrams int32 `[K, G]`, the valid words first.
    confidence, word_age float32 `[K]`. present float32 `[2]`: vision, audio. n_new int32 `[L, M]`.
    """

    frame: FloatArray
    fbank: FloatArray
    ngrams: npt.NDArray[np.int32]
    confidence: FloatArray
    word_age: FloatArray
    present: FloatArray
    n_new: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        # The graph gathers at n_new: a wrong count would read another token, or a negative index pass in silence.
        levels = self.n_new.tolist()  # nine numbers: Python is faster than numpy here
        words = [row[Modality.LANGUAGE] for row in levels]
        if not 0 <= words[0] <= len(self.ngrams) or words.count(words[0]) != len(words):
            raise StreamError(f"n_new of language = {words}: one count for all levels, 0 to {len(self.ngrams)}")
        media = [row[Modality.VISION :] for row in levels]
        if any(count not in (0, 1) for row in media for count in row):
            raise StreamError(f"n_new of vision and audio = {media}: each is 0 or 1")


@dataclass(frozen=True)
class StepOutputs:
    """The outputs of one tick: probs `[classes]`; level_weights, modality_weights, private_gates `[3]`;
    participation, there `[L, M]`, there being 1 where a level window holds a valid token. All float32."""

    probs: FloatArray
    level_weights: FloatArray
    modality_weights: FloatArray
    private_gates: FloatArray
    participation: FloatArray
    there: FloatArray


class Engine(Protocol):
    """Runs the step graph. Holds no stream: the state goes in and comes out, so many sessions share one engine."""

    @property
    def config(self) -> StudentConfig:
        """What the student reads and tells apart."""

    @property
    def precision(self) -> str:
        """fp32, int8, ..."""

    def initial_state(self) -> State:
        """The state before the first tick."""

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """One tick. The given state is not changed."""
