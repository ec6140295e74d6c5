"""The same graphs compiled to C as our native engine compiles the step: ours, and every rival that is a static graph."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from clcr_edge.export.native.compiler import find_compiler
from clcr_edge.export.native.graph import read_graph
from clcr_edge.export.native.ready import compile_step
from clcr_edge.export.step import OUTPUTS
from clcr_edge.runtime.native_engine import NativeStep
from rivals.graphs import Arrays


def compiled(model: onnx.ModelProto) -> NativeStep:
    """A static graph as a C function in this process. An input NAME is a state if there is an output next_NAME."""
    with tempfile.TemporaryDirectory(prefix="clcr-edge-") as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(model, str(path))
        graph = read_graph(path)
        given = tuple(n for n in graph.inputs if f"next_{n}" not in graph.outputs)
        return NativeStep(compile_step(graph, find_compiler(), Path(folder), given, OUTPUTS))


class CompiledStream:
    """A rival as `rivals.graphs.Stream` is one, compiled: one function per phase of the deepest stride, or one for all."""

    def __init__(self, models: Sequence[onnx.ModelProto], stride: int) -> None:
        self.steps = [compiled(m) for m in models]
        self.work = [s.workspace() for s in self.steps]
        self.stride = stride
        layouts = {tuple(s.states.tensors.items()) for s in self.steps}
        assert len(layouts) == 1, "the phases of a rival keep the same states"
        self.state = self.steps[0].first_state()

    def __call__(self, tick: int, feed: Arrays) -> list[np.ndarray]:
        phase = (tick + 1) % self.stride % len(self.steps)
        step, work = self.steps[phase], self.work[phase]
        for name, view in work.views.items():
            view[...] = feed[name]
        outputs, self.state = step(work, self.state)
        return outputs
