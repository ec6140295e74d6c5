"""The INT8 graphs of one export: calibrated once, quantised for each target, held to the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from clcr_edge.calibration.choose import Chosen, choose_ranges
from clcr_edge.calibration.observe import observe
from clcr_edge.calibration.probe import products
from clcr_edge.calibration.qdq import quantise
from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.sets import CalibrationSet
from clcr_edge.calibration.symmetric import quantise_symmetric
from clcr_edge.calibration.units import ConvSite, conv_sites
from clcr_edge.config import StudentConfig
from clcr_edge.errors import ExportError
from clcr_edge.export.sensitivity import Quantiser, Sensitivity, float_units, sensitivity
from clcr_edge.packets import Modality
from clcr_edge.runtime.engine import StepInputs

QUANTISERS: dict[str, Quantiser] = {"int8": quantise, "trt-int8": quantise_symmetric}
Tell = Callable[[str, int, int], None]


@dataclass
class Quantised:
    """One fp32 graph, calibrated. ranges: per precision, of every tensor. about: for the report."""

    model: onnx.ModelProto
    config: StudentConfig
    calibration: CalibrationSet
    sites: list[ConvSite]
    ranges: dict[str, dict[str, Range]]
    about: dict[str, Any]
    ticks: int
    timing: Sequence[StepInputs]
    tell: Tell
    _rankings: dict[str, tuple[list[Sensitivity], int]] = field(default_factory=dict)

    def build(self, precision: str, sites: Sequence[ConvSite]) -> onnx.ModelProto:
        """The graph with only these sites in INT8."""
        return QUANTISERS[precision](self.model, sites, self.ranges[precision])

    def ranking(self, precision: str) -> list[Sensitivity]:
        """The units' sensitivity, most harmful first; measured when it is first asked for."""
        if precision not in self._rankings:
            self._rankings[precision] = sensitivity(
                self.model,
                self.config,
                self.sites,
                QUANTISERS[precision],
                self.ranges[precision],
                self.calibration.streams(self.config),
                self.ticks,
                # A CPU's time says nothing about TensorRT's.
                self.timing if precision == "int8" else (),
                lambda done: self.tell(f"measuring each unit's sensitivity, {precision}", done, self.ticks),
            )
        return self._rankings[precision][0]

    def sensitivities(self) -> dict[str, Any]:
        """What has been measured of them, for the report."""
        return {
            p: {"source": self.calibration.name, "ticks": ticks, "units": [s.to_json() for s in found]}
            for p, (found, ticks) in self._rankings.items()
        }


def calibrated(
    model: onnx.ModelProto,
    config: StudentConfig,
    calibration: CalibrationSet,
    precisions: Sequence[str],
    timing: Sequence[StepInputs],
    ticks: int,
    probe: bool,
    tell: Tell,
) -> Quantised:
    """Run the calibration streams and find every range. ticks: of a sensitivity measurement. probe: also watch what the float
    units read, so that their sensitivity can be measured. Raises `DataError` if the streams will not do."""
    sites = conv_sites(model)
    if not sites:
        raise ExportError("found no convolution to quantise in the step graph; this is a fault of clcr-edge, please report it")
    tensors: dict[str, Modality | None] = {s.source: s.modality for s in sites}
    tensors |= {s.result: s.modality for s in sites}
    seen = observe(
        model,
        config,
        tensors | ({a: None for a in _activations(model) if a not in tensors} if probe else {}),
        calibration.streams(config),
        lambda done: tell("calibrating", done, calibration.ticks),
        sampled={s.source for s in sites},
    )
    tell("choosing ranges", 0, 0)
    chosen = {
        p: choose_ranges(model, sites, seen.observers, samples=seen.samples, symmetric=p == "trt-int8") for p in precisions
    }
    about = {
        "source": calibration.name,
        **calibration.about,
        "ticks": seen.ticks,
        "int8_units": [s.unit for s in sites],
        "float_units": list(float_units(model)),
        "ranges": {p: {s.unit: _told(found[s.source]) for s in sites} for p, found in chosen.items()},
    }
    ranges = {p: {name: c.range for name, c in found.items()} for p, found in chosen.items()}
    return Quantised(model, config, calibration, sites, ranges, about, ticks, timing, tell)


def _activations(model: onnx.ModelProto) -> list[str]:
    return list(dict.fromkeys(a for read in products(model).values() for a in read))


def _told(found: Chosen) -> dict[str, Any]:
    return {"low": round(found.range.low, 4), "high": round(found.range.high, 4), "method": found.method, "sqnr_db": found.db}
