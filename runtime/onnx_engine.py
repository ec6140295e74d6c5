"""The default engine everywhere: ONNX Runtime on the CPU."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from clcr_edge.bundle import Bundle
from clcr_edge.config import StudentConfig
from clcr_edge.errors import BundleError, EngineError
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs

# For a program that imported onnxruntime before clcr_edge could say so in the environment.
ort.disable_telemetry_events()

_OUTPUTS = tuple(f.name for f in dataclasses.fields(StepOutputs))
_INPUTS = tuple(f.name for f in dataclasses.fields(StepInputs))


def open_graph(path: str | os.PathLike[str] | bytes, threads: int = 1) -> ort.InferenceSession:
    """An ONNX Runtime session for a step graph (a path, or the model's bytes).

    One thread by default: a step is far too small to share, and a spinning pool would burn a core between ticks.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = path if isinstance(path, bytes) else str(path)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no public root
        name = "model" if isinstance(path, bytes) else str(path)
        raise BundleError(f"{name}: ONNX Runtime cannot load it ({str(e).splitlines()[0][:200]}); export again") from None


class OnnxEngine:
    """A step graph in ONNX Runtime. Stateless: see `Engine`."""

    def __init__(self, graph: str | os.PathLike[str] | bytes, config: StudentConfig, precision: str, threads: int = 1) -> None:
        self.config = config
        self.precision = precision
        self._session = open_graph(graph, threads)
        inputs = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        self._states = {name: shape for name, shape in inputs.items() if name not in _INPUTS}
        expected = [*_OUTPUTS, *(f"next_{name}" for name in self._states)]
        if not set(_INPUTS) <= set(inputs) or set(outputs) != set(expected):
            name = "the graph" if isinstance(graph, bytes) else Path(graph).name
            raise BundleError(f"{name}: not a step graph of this version (inputs {sorted(inputs)}); export again")
        self._wanted = expected

    @classmethod
    def from_bundle(cls, bundle: Bundle, precision: str | None = None, threads: int = 1) -> OnnxEngine:
        """The bundle's graph in a precision; None: the one its export chose."""
        chosen = precision or bundle.precisions[0]
        return cls(bundle.graph(chosen), bundle.config, chosen, threads)

    def initial_state(self) -> State:
        """All zeros, by the graph's own shapes."""
        return {name: np.zeros(shape, np.float32) for name, shape in self._states.items()}

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """One tick. Raises `EngineError` if ONNX Runtime fails."""
        feed = {name: getattr(inputs, name) for name in _INPUTS}
        try:
            results = self._session.run(self._wanted, {**feed, **state})
        except Exception as e:  # onnxruntime's errors share no public root
            reason = next(iter(str(e).splitlines()), type(e).__name__)[:200]
            raise EngineError(f"ONNX Runtime failed in a step of the {self.precision} graph ({reason}); start again") from e
        new = dict(zip(self._states, results[len(_OUTPUTS) :], strict=True))
        return StepOutputs(*results[: len(_OUTPUTS)]), new
