"""Runs calibration streams through the fp32 step, states rolled out, and observes the tensors that will be quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx

from clcr_edge.calibration.ranges import Range, RangeObserver
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
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        watched.graph.output.extend(known[name] for name in tensors)
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


def observe(
    model: onnx.ModelProto,
    config: StudentConfig,
    tensors: dict[str, Modality],
    streams: Streams,
    tell: Callable[[int], None] = lambda ticks: None,
) -> tuple[dict[str, Range], int]:
    """Best 8-bit range of each tensor over all streams, and the number of ticks seen. Raises `DataError` on no data or NaN.

    tensors: name -> the modality whose media flows through it. A tick in which that is absent is not observed: the graph
    computes it anyway, on a blank, and throws the result away.
    """
    step = ObservedStep(model, config, list(tensors))
    observers = {name: RangeObserver() for name in tensors}
    ticks = 0
    frames = sounds = 0
    for stream in streams:
        state = step.initial_state()
        for inputs in stream:
            state, values = step.step(inputs, state)
            frame, sound = (bool(p) for p in inputs.present > 0.5)
            frames, sounds = frames + frame, sounds + sound
            for name, value in values.items():
                if frame if tensors[name] is Modality.VISION else sound:
                    try:
                        observers[name].see(value)
                    except ValueError:
                        raise DataError(
                            f"calibration tick {ticks}: NaN or infinite values; record the calibration streams again"
                        ) from None
            ticks += 1
            tell(ticks)
    if not ticks:
        raise DataError("the calibration streams hold no tick; give recordings of at least some seconds")
    if not frames or not sounds:
        raise DataError(
            f"the calibration streams hold {frames} ticks with a picture and {sounds} with sound; both are needed"
        )
    return {name: o.best() for name, o in observers.items()}, ticks
