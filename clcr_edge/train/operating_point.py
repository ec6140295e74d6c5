"""How sure a network must be before it says anything: the bias of "nothing there", set once by validation.

Training streams are dense with digits, because a tick of nothing teaches little; in use most ticks hold none. What is learned
therefore speaks too easily. One number mends it: the none logit is raised until false events on validation streams without any
digit are rare. Test data has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn, no_grad

from clcr_edge.calibration.streams import inputs_of
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.streams import Stream, negative_stream
from clcr_edge.data.synthetic import with_other_speech
from clcr_edge.export.graph import export_step
from clcr_edge.model.student import Student
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.metrics import count_false_events

TARGET_PER_MINUTE = 1.5  # below the aim of 2, because the voices to come are not those of validation
MINUTES = 12
_SEED = 31_000
# More than this costs events under heavy noise, in validation: benchmarks/operating_point.py shows what each bias takes.
_STEP, _MOST = 0.125, 1.0

LogProbs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """none_bias: what was added to the none logit. before, after: false events per minute of validation without digits."""

    none_bias: float
    before: float
    after: float
    minutes: float


def choose_bias(streams: Iterable[LogProbs], target: float = TARGET_PER_MINUTE) -> OperatingPoint:
    """The smallest bias, 0 to 1 in steps of 1/8, that leaves at most `target` false events a minute; 1 if none does.

    streams: log-probabilities `[T, classes]`, float64, of streams that hold no event.
    """
    kept = list(streams)
    found = []
    for bias in np.arange(0.0, _MOST + _STEP / 2, _STEP):
        shift = np.zeros(kept[0].shape[1])
        shift[NONE] = bias
        false = count_false_events([(p + shift).argmax(axis=1) for p in kept], NONE)
        found.append((float(bias), false))
        if false.per_minute <= target:
            break
    return OperatingPoint(found[-1][0], found[0][1].per_minute, found[-1][1].per_minute, found[0][1].minutes)


def set_operating_point(student: Student, held: DigitBank, minutes: int = MINUTES) -> OperatingPoint:
    """Choose the bias on `minutes` of validation streams of a minute each, and add it to the student's head in place.

    held: the validation part of a bank of real digits; words that are no digits come from the project's calibration part.
    """
    engine = OnnxEngine(export_step(student.eval()).SerializeToString(), student.config, "fp32")
    point = choose_bias(log_probs(engine, stream) for stream in quiet_streams(with_other_speech(held, "val"), minutes))
    last = student.inter_cad.head[-1]
    assert isinstance(last, nn.Linear)
    with no_grad():
        last.bias[NONE] += point.none_bias
    return point


def quiet_streams(bank: DigitBank, minutes: int = MINUTES) -> Iterator[Stream]:
    """The streams that the bias is set by: `minutes` of a minute each, without any digit."""
    return (negative_stream(60.0, _SEED + k, bank) for k in range(minutes))


def log_probs(engine: Engine, stream: Stream) -> LogProbs:
    """What the engine says of each tick of a stream, float64 `[T, classes]`."""
    state, out = engine.initial_state(), []
    for inputs in inputs_of(stream, engine.config):
        outputs, state = engine.step(inputs, state)
        out.append(np.log(np.maximum(np.asarray(outputs.probs, np.float64).ravel(), 1e-12)))
    return np.array(out)
