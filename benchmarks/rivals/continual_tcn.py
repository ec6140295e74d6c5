"""(d) `continual-inference` (PyPI) on the parts that it can express: the two media TCNs, front features -> three levels.

    pip install --no-deps --target DIR continual-inference;  python benchmarks/step_speed.py --continual DIR

What it cannot express, as of 1.2.4: a convolution with temporal dilation (it asserts; here its taps stand in a kernel of 5 with
zeros between them); a residual that is aligned causally (its containers delay the short cut to a centred one, so the sums are
written out); words, which come by count and not by time; IntraCED, as its attention has neither a budget nor masks nor a bias
by age; any window of tokens whose validity changes. Strided layers return None when nothing is due, which no static graph can.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.export.step import StepGraph, initial_state
from clcr_edge.model.hierarchy import CausalConv, Stage
from clcr_edge.model.student import Student
from clcr_edge.runtime.onnx_engine import open_graph
from rivals.graphs import export
from rivals.race import LIMIT, ratio


def library(folder: Path | None) -> Any | None:
    """The package, from the given folder or the environment; None where it is not installed."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        import continual
    except ImportError:
        return None
    return continual


class ContinualTcn:
    """Both TCNs, step by step. A call gives per level the newest feature `[2, d]`, or None while nothing is due."""

    def __init__(self, student: Student, co: Any) -> None:
        tcns = student.vision_tcn, student.audio_tcn
        self.towers = [[[self._conv(c, co) for c in self._convs(stage)] for stage in tcn.stages] for tcn in tcns]

    @staticmethod
    def _convs(stage: nn.Module) -> list[CausalConv]:
        assert isinstance(stage, Stage)
        return [stage.down, *(b for b in stage.blocks if isinstance(b, CausalConv))]

    @staticmethod
    @torch.no_grad()
    def _conv(conv: CausalConv, co: Any) -> nn.Module:
        taps = 1 + (conv.kernel - 1) * conv.dilation
        width = conv.conv.in_channels
        made = co.Conv1d(width, width, taps, stride=conv.stride, padding=taps - conv.stride)
        norm = conv.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        made.weight.zero_()
        made.weight[:, :, :: conv.dilation] = conv.conv.weight * gain[:, None, None]
        made.bias.copy_(norm.bias - norm.running_mean * gain)
        return made.eval()

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> list[Tensor | None]:
        """x `[2, d]`: the tick's vision and audio features."""
        found: list[list[Tensor]] = [[], [], []]
        for tower, feature in zip(self.towers, x.unsqueeze(1), strict=True):
            for level, (down, *blocks) in enumerate(tower):
                made = down.forward_step(feature)
                if made is None:
                    break
                feature = F.relu(made)
                for block in blocks:
                    feature = feature + F.relu(block.forward_step(feature))
                found[level].append(feature)
        return [torch.cat(pair) if pair else None for pair in found]


class OurTcn(nn.Module):
    """The same part of our step: features `[2, 1, d]`, fired `[L, 2]`, past `[2, sum, d]` -> levels `[L, 2, d]`, new past."""

    def __init__(self, graph: StepGraph) -> None:
        super().__init__()
        self.step = graph

    def forward(self, x: Tensor, fired: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        levels, kept = self.step._media_levels(x, past, fired)
        return levels.squeeze(2), kept


def due(tick: int, strides: tuple[int, ...]) -> np.ndarray:
    """Which levels fire at a tick: bool `[L, 2]`."""
    return np.array([[(tick + 1) % s == 0] * 2 for s in strides])


def race_tcn(student: Student, folder: Path | None, rounds: int, block: int) -> dict[str, Any] | None:
    """(d): the media TCNs alone; ours in ONNX Runtime and in torch eager."""
    co = library(folder)
    if co is None:
        return None
    logging.getLogger("continual").setLevel(logging.ERROR)
    module = OurTcn(StepGraph(student)).eval()
    past = initial_state(student.config).past_features
    strides = student.config.model.strides
    fired = torch.ones(3, 2, dtype=torch.bool)
    example = {"x": torch.zeros(2, 1, student.config.model.width), "fired": fired, "past": past}
    model = export(module, example, ["levels", "next_past"])
    session = open_graph(model.SerializeToString())
    theirs = ContinualTcn(student, co)
    state = {"ort": past.numpy(), "eager": past}
    x = np.random.default_rng(1).standard_normal((rounds * block, 2, 1, student.config.model.width)).astype(np.float32)
    times: dict[str, list[float]] = {"ort": [], "eager": [], "continual": []}
    worst = 0.0
    for r in range(rounds):
        found: dict[str, list[Any]] = {name: [] for name in times}
        for name in list(times)[r % 3 :] + list(times)[: r % 3]:
            begun = time.perf_counter_ns()
            for tick in range(r * block, (r + 1) * block):
                if name == "ort":
                    levels, state["ort"] = session.run(None, {"x": x[tick], "fired": due(tick, strides), "past": state["ort"]})
                elif name == "eager":
                    with torch.inference_mode():
                        levels, state["eager"] = module(
                            torch.from_numpy(x[tick]), torch.from_numpy(due(tick, strides)), state["eager"]
                        )
                else:
                    levels = theirs(torch.from_numpy(x[tick, :, 0]))
                found[name].append(levels)
            times[name].append((time.perf_counter_ns() - begun) / 1e3 / block)
        for k, tick in enumerate(range(r * block, (r + 1) * block)):
            for level in range(3):
                got = found["continual"][k][level]
                assert (got is not None) == due(tick, strides)[level, 0]
                if got is not None:
                    mine = (np.asarray(found[name][k][level]) for name in ("ort", "eager"))
                    worst = max(worst, *(float(np.abs(m - got.numpy()).max()) for m in mine))
    assert worst <= LIMIT, f"continual-inference differs by {worst}"
    skip = rounds // 10
    cut = {name: values[skip:] for name, values in times.items()}
    return {
        "version": str(co.__version__),
        "max_difference": worst,
        **{f"{name}_us": round(float(np.median(values)), 1) for name, values in cut.items()},
        "ratio_to_ours_onnx": ratio(cut["continual"], cut["ort"]),
        "ratio_to_ours_eager": ratio(cut["continual"], cut["eager"]),
    }
