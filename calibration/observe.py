"""Runs calibration streams through the fp32 step, states rolled out, and observes the tensors that will be quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import onnx

from clcr_edge.calibration.choose import Samples
from clcr_edge.calibration.graph_edit import copy_of
from clcr_edge.calibration.media_check import MediaCheck
from clcr_edge.calibration.ranges import RangeObserver
from clcr_edge.config import StudentConfig
from clcr_edge.errors import DataError
from clcr_edge.packets import FloatArray, Modality
from clcr_edge.runtime.engine import State, StepInputs
from clcr_edge.runtime.onnx_engine import OnnxEngine, open_graph

Streams = Iterable[Iterable[StepInputs]]


class ObservedStep:
    """The fp32 step with further outputs: the tensors to observe. States are rolled out, so the level windows and left contexts
    are what they are in use and not zeros."""

    def __init__(self, model: onnx.ModelProto, config: StudentConfig, tensors: list[str]) -> None:
        watched = copy_of(model)
        known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        outputs = {o.name for o in model.graph.output}
        watched.graph.output.extend(known[name] for name in tensors if name not in outputs)
        self._session = open_graph(watched.SerializeToString())
        self._tensors = tensors
        self._initial = OnnxEngine(model.SerializeToString(), config, "fp32").initial_state()

    def initial_state(self) -> State:
        """All zeros."""
        return dict(self._initial)

    def step(self, inputs: StepInputs, state: State) -> tuple[State, dict[str, FloatArray]]:
        """One tick: the new state, and the observed tensors."""
        wanted = [*(f"next_{name}" for name in state), *self._tensors]
        results = self._session.run(wanted, {**vars(inputs), **state})
        new = dict(zip(state, results[: len(state)], strict=True))
        return new, dict(zip(self._tensors, results[len(state) :], strict=True))


@dataclass(frozen=True)
class Observed:
    """What was seen of each tensor. samples: of the tensors that were asked for as such. ticks: how many were run."""

    observers: dict[str, RangeObserver]
    samples: dict[str, Samples]
    ticks: int


def observe(
    model: onnx.ModelProto,
    config: StudentConfig,
    tensors: Mapping[str, Modality | None],
    streams: Streams,
    tell: Callable[[int], None] = lambda ticks: None,
    sampled: Iterable[str] = (),
) -> Observed:
    """Watch tensors over all streams. Raises `DataError` on no data, NaN, silence or darkness only.

    tensors: name -> the modality whose media flows through it; None: always observed. A tick in which that is absent is not
    observed: the graph computes it anyway, on a blank, and throws the result away. sampled: tensors to keep some ticks of.
    """
    step = ObservedStep(model, config, list(tensors))
    observers = {name: RangeObserver() for name in tensors}
    samples = {name: Samples() for name in sampled}
    media = MediaCheck()
    for stream in streams:
        state = step.initial_state()
        for inputs in stream:
            there = media.see(inputs)
            state, values = step.step(inputs, state)
            for name, value in values.items():
                modality = tensors[name]
                if modality is not None and not there[modality]:
                    continue
                try:
                    observers[name].see(value)
                except ValueError:
                    raise DataError(
                        f"calibration tick {media.ticks - 1}: NaN or infinite values; record the calibration streams again"
                    ) from None
                if name in samples:
                    samples[name].see(value)
            tell(media.ticks)
    media.check()
    return Observed(observers, samples, media.ticks)
