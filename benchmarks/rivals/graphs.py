"""Torch modules -> ONNX graphs -> a stream that feeds its own states back: the same harness for us and every rival."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from clcr_edge.export.graph import OPSET, clean
from clcr_edge.export.step import OUTPUTS, StepGraph
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.onnx_engine import open_graph

Arrays = dict[str, np.ndarray]
INPUTS = tuple(f.name for f in dataclasses.fields(StepInputs))


def export(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """A module as ONNX, through the exporter that makes the bundle's graph."""
    noisy = logging.getLogger("torch.onnx._internal.exporter._registration")
    noisy.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, opset_version=OPSET, input_names=list(inputs),
            output_names=list(outputs), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    clean(program.model_proto)
    return program.model_proto


class FrameCnn(nn.Module):
    """The frame CNN of a step alone: frame `[1, 1, S, S]` -> `[1, d]`."""

    def __init__(self, graph: StepGraph) -> None:
        super().__init__()
        self.step = graph

    def forward(self, frame: Tensor) -> Tensor:
        return self.step._frame(frame)


def with_frame_cnn(cnn: onnx.ModelProto, rest: onnx.ModelProto) -> onnx.ModelProto:
    """One graph of both: the CNN's output becomes the input `frame` of the rest."""
    head = onnx.compose.add_prefix(cnn, "cnn.", rename_inputs=False)
    pairs = [(head.graph.output[0].name, "frame")]
    inner = onnx.ModelProto()
    inner.CopyFrom(rest)
    for node in inner.graph.node:  # both have an input called `frame`
        node.input[:] = ["frame_features" if name == "frame" else name for name in node.input]
    for value in inner.graph.input:
        if value.name == "frame":
            value.name = "frame_features"
    pairs = [(pairs[0][0], "frame_features")]
    return onnx.compose.merge_models(head, inner, io_map=pairs)


class Stream:
    """A rival that is one ONNX graph per phase of the deepest stride (or one for all), with states called `next_*`."""

    def __init__(self, models: Sequence[onnx.ModelProto], stride: int) -> None:
        self.sessions = [open_graph(m.SerializeToString()) for m in models]
        self.stride = stride
        first = self.sessions[0]
        self.wanted = [*OUTPUTS, *(o.name for o in first.get_outputs() if o.name.startswith("next_"))]
        self.states = [name.removeprefix("next_") for name in self.wanted[len(OUTPUTS) :]]
        shapes = {i.name: i.shape for i in first.get_inputs()}
        self.reads = [{i.name for i in s.get_inputs()} for s in self.sessions]
        self.state: Arrays = {name: np.zeros(shapes[name], np.float32) for name in self.states}

    @property
    def state_bytes(self) -> int:
        return sum(x.nbytes for x in self.state.values())

    def __call__(self, tick: int, feed: Arrays) -> list[np.ndarray]:
        phase = (tick + 1) % self.stride % len(self.sessions)
        reads = self.reads[phase]
        inputs = {name: value for name, value in feed.items() if name in reads}
        results = self.sessions[phase].run(self.wanted, {**inputs, **self.state})
        self.state = dict(zip(self.states, results[len(OUTPUTS) :], strict=True))
        return results[: len(OUTPUTS)]


class Eager:
    """The same in torch eager: `modules` by phase, the state a list of tensors."""

    def __init__(self, modules: Sequence[nn.Module], state: Sequence[Tensor], stride: int) -> None:
        self.modules, self.state, self.stride = modules, tuple(state), stride

    @torch.inference_mode()
    def __call__(self, tick: int, feed: Arrays) -> list[np.ndarray]:
        phase = (tick + 1) % self.stride % len(self.modules)
        results = self.modules[phase](*(torch.from_numpy(feed[name]) for name in INPUTS), *self.state)
        self.state = results[len(OUTPUTS) :]
        return [x.numpy() for x in results[: len(OUTPUTS)]]
