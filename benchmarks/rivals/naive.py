"""(b): the host keeps the raw media of the receptive field; only the call is timed, not that copying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from clcr_edge.export.step import OUTPUTS
from clcr_edge.runtime.onnx_engine import open_graph
from rivals.compiled import compiled
from rivals.graphs import Arrays


class _Rings:
    """Raw media of the receptive field, the newest last, in the arrays that the graph reads."""

    def __init__(self, rings: Arrays, config: Any) -> None:
        self.rings, self.words = rings, config.model.window

    def push(self, feed: Arrays) -> None:
        def append(name: str, new: np.ndarray) -> None:
            if len(new):
                ring = self.rings[name]
                ring[: -len(new)] = ring[len(new) :].copy()
                ring[-len(new) :] = new

        append("frames", feed["frame"])
        append("fbank", feed["fbank"])
        presence = self.rings["presence"]
        presence[:, :-1] = presence[:, 1:].copy()
        presence[:, -1] = feed["present"]
        count = int(feed["n_new"][0, 0])
        self.rings["word_ages"] += 1
        for name in ("ngrams", "confidence"):
            append(name, feed[name][:count])
        append("word_ages", feed["word_age"][:count])
        append("word_there", np.ones(count, np.float32))


class NaiveStream(_Rings):
    """In ONNX Runtime."""

    def __init__(self, models: Sequence[onnx.ModelProto], config: Any) -> None:
        self.sessions = [open_graph(m.SerializeToString()) for m in models]
        shapes = {i.name: i.shape for i in self.sessions[-1].get_inputs()}
        kinds = {"ngrams": np.int32}
        super().__init__({name: np.zeros(shape, kinds.get(name, np.float32)) for name, shape in shapes.items()}, config)

    def __call__(self, tick: int) -> list[np.ndarray]:
        return self.sessions[(tick + 1) % len(self.sessions)].run(list(OUTPUTS), self.rings)


class CompiledNaive(_Rings):
    """Compiled, the rings being the function's own input block."""

    def __init__(self, models: Sequence[onnx.ModelProto], config: Any) -> None:
        self.steps = [compiled(m) for m in models]
        self.work = [s.workspace() for s in self.steps]
        shared = self.work[0]
        assert all(s.inputs.tensors == self.steps[0].inputs.tensors for s in self.steps)
        for work in self.work:
            work.block, work.views = shared.block, shared.views
        self.state = self.steps[0].first_state()
        super().__init__(shared.views, config)

    def __call__(self, tick: int) -> list[np.ndarray]:
        phase = (tick + 1) % len(self.steps)
        return self.steps[phase](self.work[phase], self.state)[0]
