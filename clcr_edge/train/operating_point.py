"""How sure a network must be before it says anything: the bias of "nothing there", set once by validation.

Training streams are dense with digits, because a tick of nothing teaches little; in use most ticks hold none. What is learned
therefore speaks too easily, all together; a modality that is alone may speak too seldom. So the none logit is moved, for each
of these apart (`clcr_edge.model.operating_point`), as little upwards as makes false events on validation streams without any
digit rare. Test data has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import no_grad

from clcr_edge.calibration.streams import inputs_of
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.streams import Ears, Stream, negative_stream
from clcr_edge.data.synthetic import with_other_speech
from clcr_edge.export.graph import export_step
from clcr_edge.model.student import Student
from clcr_edge.packets import Modality
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.metrics import count_false_events

TARGET_PER_MINUTE = 1.5  # below the aim of 2, because the voices to come are not those of validation
MINUTES = 12
_SEED = 31_000
# Where the search begins and ends. benchmarks/operating_point.py shows what each bias takes: past the end, events are lost.
_STEP = 0.125
TOGETHER, ALONE = (0.0, 2.0), (-2.0, 1.0)
_NAMES = frozenset(m.key for m in Modality)

LogProbs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """none_bias: added to the none logit. before, after: false events per minute of validation without digits."""

    none_bias: float
    before: float
    after: float


@dataclass(frozen=True)
class OperatingPoint:
    """together: while two or three modalities are there; alone: by the name of the only one. minutes: of validation."""

    together: Choice
    alone: dict[str, Choice]
    minutes: float

    def to_table(self) -> dict[str, Any]:
        """For a checkpoint's provenance."""
        alone = {name: vars(choice) for name, choice in self.alone.items()}
        return {"minutes": self.minutes, "together": vars(self.together), "alone": alone}


def choose_bias(
    streams: Iterable[LogProbs], bounds: tuple[float, float] = TOGETHER, target: float = TARGET_PER_MINUTE
) -> Choice:
    """The smallest bias within bounds, in steps of 1/8, that leaves at most `target` false events a minute; else the largest.

    streams: log-probabilities `[T, classes]`, float64, of streams that hold no event.
    """
    kept = list(streams)
    before = false_per_minute(kept, 0.0)
    chosen, after = bounds[0], before
    for bias in np.arange(bounds[0], bounds[1] + _STEP / 2, _STEP).tolist():
        chosen, after = bias, false_per_minute(kept, bias)
        if after <= target:
            break
    return Choice(chosen, before, after)


def false_per_minute(streams: Iterable[LogProbs], bias: float) -> float:
    """False events a minute with `bias` added to the none logit."""
    return count_false_events([labels(said, bias) for said in streams], NONE).per_minute


def labels(said: LogProbs, bias: float) -> npt.NDArray[np.int64]:
    """The label of each tick, int64 `[T]`, with `bias` added to the none logit."""
    shift = np.zeros(said.shape[1])
    shift[NONE] = bias
    return np.asarray((said + shift).argmax(axis=1), np.int64)


def set_operating_point(student: Student, held: DigitBank, minutes: int = MINUTES, ears: Ears | None = None) -> OperatingPoint:
    """Choose the biases on `minutes` of validation streams of a minute each, and put them into the student in place of its own.

    held: the validation part of a bank of real digits; words that are no digits come from the project's calibration part. ears:
    the recogniser that listens to them, None for simulated words. Language alone is set by simulated ones always: a
    recogniser's words come with their sound, so words without it are what a program pushes.
    """
    engine = engine_without_bias(student)
    bank = with_other_speech(held, "val")
    quiet = list(quiet_streams(bank, minutes, ears))
    pushed = quiet if ears is None else list(quiet_streams(bank, minutes))
    together = choose_bias([log_probs(engine, s) for s in quiet])
    alone = {}
    for m in Modality:
        streams = pushed if m is Modality.LANGUAGE else quiet
        alone[m.key] = choose_bias([log_probs(engine, s, _NAMES - {m.key}) for s in streams], ALONE)
    point = OperatingPoint(together, alone, float(minutes))
    with no_grad():
        student.operating_bias.together[NONE] = together.none_bias
        for modality in Modality:
            student.operating_bias.alone[modality, NONE] = alone[modality.key].none_bias
    return point


def engine_without_bias(student: Student) -> Engine:
    """The student as it was trained, on ONNX Runtime. Its operating biases become zero."""
    student.operating_bias.together.zero_()
    student.operating_bias.alone.zero_()
    return OnnxEngine(export_step(student.eval()).SerializeToString(), student.config, "fp32")


def quiet_streams(bank: DigitBank, minutes: int = MINUTES, ears: Ears | None = None) -> Iterator[Stream]:
    """The streams that the biases are set by: `minutes` of a minute each, without any digit."""
    return (negative_stream(60.0, _SEED + k, bank, ears=ears) for k in range(minutes))


def log_probs(engine: Engine, stream: Stream, without: frozenset[str] = frozenset()) -> LogProbs:
    """What the engine says of each tick of a stream, float64 `[T, classes]`. without: modalities that are taken away."""
    state, out = engine.initial_state(), []
    for inputs in inputs_of(stream, engine.config, without):
        outputs, state = engine.step(inputs, state)
        out.append(np.log(np.maximum(np.asarray(outputs.probs, np.float64).ravel(), 1e-12)))
    return np.array(out)
