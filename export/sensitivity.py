"""What 8 bit does to each unit of the network, in model words, ranked: which one is to blame, and which is not worth it.

One unit at a time is put in 8 bit, all else stays fp32, and all these graphs run over the same ticks in one pass, beside the
fp32 one. The convolutions are what is shipped in INT8; the others (TCN, tokens, IntraCED, InterCAD, head) are shipped in
float, and their rows say what that saves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice

import numpy as np
import onnx

from clcr_edge.calibration.probe import products, quantise_products
from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.sets import TickStream
from clcr_edge.calibration.units import ConvSite
from clcr_edge.config import StudentConfig
from clcr_edge.export.latency import timed
from clcr_edge.export.rules.names import Units
from clcr_edge.export.rules.view import GraphView
from clcr_edge.packets import Level
from clcr_edge.runtime.engine import Engine, StepInputs
from clcr_edge.runtime.onnx_engine import OnnxEngine

TICKS = 500
_A_STREAM = 250  # ticks of one stream, where there are more: the next ones have other conditions
_TCN = re.compile(r"^media\.tcn\.conv(\d+)$")
_ROUNDS = 60

Quantiser = Callable[[onnx.ModelProto, Sequence[ConvSite], Mapping[str, Range]], onnx.ModelProto]


@dataclass(frozen=True)
class Sensitivity:
    """What 8 bit does to one unit. shipped: "int8" or "float", what the export makes of it.

    sqnr_db: of the probabilities, fp32 being the signal; less is worse. labels_changed: per cent of the ticks whose label is
    another one than in fp32. tick_accuracy_lost: points; None where the ticks have no labels. latency_ms: what 8 bit adds to a
    tick on this CPU (negative: saves), for an INT8 unit beside the other INT8 units, for a float unit beside fp32; None: not
    measured.
    """

    unit: str
    shipped: str
    sqnr_db: float
    labels_changed: float
    tick_accuracy_lost: float | None
    latency_ms: float | None

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def float_units(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The units whose matrix products stay float: name -> nodes. The TCN's convolutions are named by level."""
    names = Units(GraphView(model))
    nodes = {n.name: n for n in model.graph.node}
    convs = sum(bool(_TCN.match(names.of(nodes[n]))) for n in products(model))
    found: dict[str, list[str]] = {}
    for node in products(model):
        unit = names.of(nodes[node])
        if match := _TCN.match(unit):
            unit = f"media.tcn.{Level(int(match[1]) * len(Level) // convs).key}"
        elif unit == node:
            unit = "intraced"  # the attention's products are the only ones without a weight
        found.setdefault(unit, []).append(node)
    return found


def sensitivity(
    model: onnx.ModelProto,
    config: StudentConfig,
    sites: Sequence[ConvSite],
    quantiser: Quantiser,
    ranges: Mapping[str, Range],
    streams: Iterable[TickStream],
    ticks: int = TICKS,
    timing: Sequence[StepInputs] = (),
    tell: Callable[[int], None] = lambda ticks: None,
) -> tuple[list[Sensitivity], int]:
    """Every unit's sensitivity, most harmful first, and the number of ticks that it rests on.

    sites, quantiser, ranges: the units that are shipped in INT8, and how. ranges also hold the activations of the float units
    that are to be probed. timing: ticks to measure latency on; none: it is not measured.
    """

    def opened(graph: onnx.ModelProto) -> Engine:
        return OnnxEngine(graph.SerializeToString(), config, "probe")

    activations = products(model)
    probed = {
        unit: nodes for unit, nodes in float_units(model).items() if all(a in ranges for n in nodes for a in activations[n])
    }
    reference = opened(model)
    probes = {s.unit: opened(quantiser(model, [s], ranges)) for s in sites}
    probes |= {unit: opened(quantise_products(model, nodes, ranges)) for unit, nodes in probed.items()}
    errors, changed, right = dict.fromkeys(probes, 0.0), dict.fromkeys(probes, 0), dict.fromkeys(probes, 0)
    signal, base, labelled, done = 0.0, 0, 0, 0
    coming = iter(streams)
    first = list(islice(coming, 2))
    share = ticks if len(first) < 2 else max(_A_STREAM, ticks // 4)
    for stream in chain(first, coming):
        engines = {"": reference, **probes}
        states = {name: engine.initial_state() for name, engine in engines.items()}
        for at, inputs in enumerate(islice(stream, min(share, ticks - done))):
            said = {}
            for name, engine in engines.items():
                outputs, states[name] = engine.step(inputs, states[name])
                said[name] = outputs.probs.astype(np.float64)
            wanted = said[""]
            label = None if stream.labels is None else int(stream.labels[at])
            signal += float((wanted**2).sum())
            labelled += label is not None
            base += label == int(wanted.argmax())
            for name in probes:
                errors[name] += float(((said[name] - wanted) ** 2).sum())
                changed[name] += int(said[name].argmax()) != int(wanted.argmax())
                right[name] += label == int(said[name].argmax())
            done += 1
            tell(done)
        if done >= ticks:
            break
    costs = _latency(model, sites, quantiser, ranges, probes, probed, opened, timing) if timing else {}
    shipped = {s.unit for s in sites}
    found = [
        Sensitivity(
            unit=name,
            shipped="int8" if name in shipped else "float",
            sqnr_db=round(_db(signal, errors[name]), 1),
            labels_changed=round(100.0 * changed[name] / max(done, 1), 2),
            tick_accuracy_lost=round(100.0 * (base - right[name]) / labelled, 2) if labelled else None,
            latency_ms=costs.get(name),
        )
        for name in probes
    ]
    return sorted(found, key=lambda s: (s.sqnr_db, -s.labels_changed)), done


def _db(signal: float, noise: float) -> float:
    return 150.0 if noise == 0 else min(150.0, 10.0 * float(np.log10(max(signal, 1e-30) / noise)))


def _latency(
    model: onnx.ModelProto,
    sites: Sequence[ConvSite],
    quantiser: Quantiser,
    ranges: Mapping[str, Range],
    probes: Mapping[str, Engine],
    probed: Iterable[str],
    opened: Callable[[onnx.ModelProto], Engine],
    timing: Sequence[StepInputs],
) -> dict[str, float]:
    # A convolution alone in INT8 pays for Q/DQ on both sides that its neighbours share once they are INT8 as well. So what it
    # is worth is measured the other way round: all of them in INT8, but for it.
    without = {s.unit: opened(quantiser(model, [o for o in sites if o is not s], ranges)) for s in sites}
    floats = {unit: probes[unit] for unit in probed}
    all_int8, fp32 = opened(quantiser(model, sites, ranges)), opened(model)
    seconds = timed({"all": all_int8, "fp32": fp32, **without, **floats}, timing, _ROUNDS)
    p50 = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
    saved = {unit: p50["all"] - p50[unit] for unit in without}
    added = {unit: p50[unit] - p50["fp32"] for unit in floats}
    return {unit: round(value, 4) for unit, value in {**saved, **added}.items()}
