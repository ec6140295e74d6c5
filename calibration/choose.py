"""Which method's range serves a tensor best: measured where it matters, in what the convolution that reads it makes of it.

The squared error of a tensor itself would always choose the range that was searched for by squared error. A convolution
weighs its inputs: a large value that is clipped may count for little there, or for everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clcr_edge.calibration.ranges import METHODS, Range, RangeObserver, rounded
from clcr_edge.calibration.units import ConvSite
from clcr_edge.packets import FloatArray
from clcr_edge.runtime.onnx_engine import open_graph

_MOST_SAMPLES = 32


class Samples:
    """Some ticks of a tensor, spread evenly over streams of any length: at most 32, at least 16 once that many have come."""

    def __init__(self) -> None:
        self._kept: list[FloatArray] = []
        self._every, self._count = 1, 0

    def see(self, value: FloatArray) -> None:
        """Offer one tick's tensor, `[1, ...]`."""
        if self._count % self._every == 0:
            self._kept.append(value.copy())
            if len(self._kept) == _MOST_SAMPLES:
                self._kept = self._kept[::2]
                self._every *= 2
        self._count += 1

    def stacked(self) -> FloatArray:
        """Those that were kept, `[n, ...]`."""
        return np.concatenate(self._kept)


@dataclass(frozen=True)
class Chosen:
    """One tensor's range. method: who found it. db: by method, the SQNR in dB of what reads the tensor (of the tensor itself
    where no convolution reads it)."""

    range: Range
    method: str
    db: dict[str, float]


def choose_ranges(
    model: onnx.ModelProto,
    sites: Sequence[ConvSite],
    observers: Mapping[str, RangeObserver],
    samples: Mapping[str, Samples],
    symmetric: bool,
) -> dict[str, Chosen]:
    """The best range of every observed tensor, for unsigned codes or for symmetric signed ones."""
    nodes = {n.name: n for n in model.graph.node}
    weights = {i.name: i for i in model.graph.initializer}
    readers: dict[str, list[ConvSite]] = {}
    for site in sites:
        readers.setdefault(site.source, []).append(site)
    found = {}
    for name, observer in observers.items():
        candidates = observer.candidates(symmetric)
        if name in readers and name in samples:
            values = samples[name].stacked()
            reading = [_Reader(nodes[s.node], weights) for s in readers[name]]
            db = {m: min(r.sqnr(values, candidates[m], symmetric) for r in reading) for m in METHODS}
        else:
            db = {m: _db(observer.power(), observer.error(candidates[m], symmetric)) for m in METHODS}
        method = max(METHODS, key=lambda m: db[m])  # of equals, the first
        found[name] = Chosen(candidates[method], method, {m: round(v, 2) for m, v in db.items()})
    return found


def _db(signal: float, noise: float) -> float:
    return 150.0 if noise <= 0 else float(np.clip(10.0 * np.log10(max(signal, 1e-30) / noise), -150.0, 150.0))


class _Reader:
    """One convolution by itself, in float, with its float weights and with its 8-bit ones."""

    def __init__(self, node: onnx.NodeProto, weights: Mapping[str, TensorProto]) -> None:
        weight = numpy_helper.to_array(weights[node.input[1]])
        axes = tuple(range(1, weight.ndim))
        scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-8) / 127.0
        coded = (np.clip(np.round(weight / scale), -127, 127) * scale).astype(np.float32)
        self._exact, self._coded = (open_graph(_alone(node, w).SerializeToString()) for w in (weight, coded))
        self._reference: FloatArray | None = None

    def sqnr(self, values: FloatArray, found: Range, symmetric: bool) -> float:
        """SQNR in dB of the convolution's output when its input and weights are 8 bit."""
        if self._reference is None:
            self._reference = self._exact.run(None, {"x": values})[0]
        got = self._coded.run(None, {"x": rounded(values, found, symmetric).astype(np.float32)})[0]
        noise = got.astype(np.float64) - self._reference
        return _db(float((self._reference.astype(np.float64) ** 2).mean()), float((noise**2).mean()))


def _alone(node: onnx.NodeProto, weight: FloatArray) -> onnx.ModelProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(["x", "w"])  # the bias is the same in both and would only hide the difference
    copy.output.append("y")
    graph = helper.make_graph(
        [copy],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[1] * _groups(node), None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _groups(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)
