"""Checkpoint -> bundle: export, calibrate, quantise, prove, gate, choose. Nothing is handed over that has not been measured.

    student --graph--> step.fp32.onnx --observe on streams--> ranges --qdq--> step.int8.onnx              target cpu
       |                     |                                   \\--symmetric--> step.trt-int8.onnx      target tensorrt
       |                     \\--half--> step.trt-fp16.onnx, held to TensorRT's rules as the line above
       \\--golden--> golden.npz         parity, event accuracy, latency of each --> gate --> report.json, report.html
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import onnx
import onnxruntime as ort

from clcr_edge import bundle as bundles
from clcr_edge.bundle import Bundle
from clcr_edge.calibration.sets import CalibrationSet, CheckSet
from clcr_edge.calibration.units import ConvSite
from clcr_edge.config import StudentConfig
from clcr_edge.data.seen import FILE as SEEN
from clcr_edge.errors import ExportError
from clcr_edge.export.gate import Gate, Outcome, hold
from clcr_edge.export.golden import Golden, compare, make_golden, save_golden
from clcr_edge.export.graph import check, export_step
from clcr_edge.export.half import to_half
from clcr_edge.export.ladder import BuiltLadder, build_ladder
from clcr_edge.export.latency import histogram, percentiles, timed
from clcr_edge.export.measure import Measured, measure
from clcr_edge.export.memory import resident_bytes, state_bytes
from clcr_edge.export.quantised import Quantised, calibrated
from clcr_edge.export.report_page import page
from clcr_edge.export.rounded import rounded
from clcr_edge.export.rules.check import findings
from clcr_edge.export.sensitivity import TICKS as SENSITIVITY_TICKS
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.ladder import to_table
from clcr_edge.runtime.machine import cpu_name
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.checkpoint import load_student

GRAPHS = {
    "fp32": "step.fp32.onnx",
    "int8": "step.int8.onnx",
    "trt-int8": "step.trt-int8.onnx",
    "trt-fp16": "step.trt-fp16.onnx",
}
SCHEMES = {
    "int8": "static Q/DQ: u8 activations, s8 weights per channel, s32 bias",
    "trt-int8": "static Q/DQ: s8 activations, zero points 0, s8 weights per channel, float bias; the rest fp32",
    "trt-fp16": "FP16 weights and activations; states, norms, softmaxes and simplex fp32",
}
GOLDEN, REPORT, PAGE = "golden.npz", "report.json", "report.html"
PARITY = 1e-4  # largest difference of any fp32 output from torch over the golden ticks
MAX_LOSS_POINTS = Gate().max_drop
_GOLDEN_TICKS = 64


class Tell(Protocol):
    """Progress: what is being done, and how much of it (done, of how much) where that is known."""

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None: ...


def export_bundle(
    checkpoint: Path,
    out: Path,
    int8: bool,
    calibration: CalibrationSet,
    checks: CheckSet,
    tell: Tell,
    target: str = "cpu",
    gate: Gate | None = None,
    sensitivity_ticks: int = SENSITIVITY_TICKS,
    ladder: bool = False,
) -> tuple[Bundle, dict[str, Any]]:
    """Write the bundle to `out`; returns it and the report.

    int8: for target "cpu", also an INT8 graph. target: "cpu", "tensorrt" (an INT8 and an FP16 graph beside fp32) or "both".
    gate: what an INT8 graph must hold (None: the usual); one that does not is left out, and the report's "gate" says so.
    sensitivity_ticks: how many ticks each unit's sensitivity is measured on; 0: only if the gate needs it.
    ladder: also build the shedding ladder of ONNX Runtime (see `clcr_edge.export.ladder`).
    Raises `ExportError` if fp32 does not match torch, or a graph breaks a rule of TensorRT; `DataError` if the calibration set
    will not do, or was made for another model.
    """
    gate = gate or Gate()
    bundles.check_target(out)
    tell("reading the checkpoint")
    student, training = load_student(checkpoint)
    config = student.config
    calibration.check(config)
    checks.check(config)
    tell("exporting the step graph")
    fp32 = export_step(student)
    models = {"fp32": fp32}
    tell("writing golden vectors")
    golden = make_golden(student, islice(next(calibration.streams(config)), _GOLDEN_TICKS))
    wanted = [
        *(["int8"] if int8 and target in ("cpu", "both") else []),
        *(["trt-int8", "trt-fp16"] if target in ("tensorrt", "both") else []),
    ]
    integer = [p for p in wanted if p in ("int8", "trt-int8")]
    quantised = None
    if integer:
        ticks = sensitivity_ticks or SENSITIVITY_TICKS
        quantised = calibrated(
            fp32, config, calibration, integer, golden.inputs, ticks, sensitivity_ticks > 0, lambda w, d, n: tell(w, d, n)
        )
        quantised.about["schemes"] = {p: SCHEMES[p] for p in wanted}
        models |= {p: quantised.build(p, quantised.sites) for p in integer}
    if "trt-fp16" in wanted:
        models["trt-fp16"] = to_half(fp32)
    for precision in wanted:
        _sound(models[precision], precision)
    engines = {p: _measurable(m, config, p) for p, m in models.items()}
    _hold_parity(engines["fp32"], golden)

    measured = _measured(engines, checks, ", ".join(engines), tell)
    outcomes: dict[str, Outcome] = {}
    if quantised is not None:
        for precision in integer if sensitivity_ticks else ():  # s8 and u8 spoil different units: each has its own ranking
            quantised.ranking(precision)
        for precision in integer:
            outcome = _gated(quantised, precision, measured, gate, checks, golden, tell)
            outcomes[precision] = outcome
            measured[precision] = outcome.measured
            if not outcome.held:
                del models[precision], engines[precision]
            elif outcome.reverted:
                models[precision] = quantised.build(precision, outcome.sites)
                _sound(models[precision], precision)
                engines[precision] = _measurable(models[precision], config, precision)
    tell("measuring latency, interleaved")
    # A CPU's time says nothing about TensorRT's: that is measured on the device, never guessed.
    seconds = timed({p: e for p, e in engines.items() if p not in _TENSORRT}, golden.inputs)
    tell("measuring memory")
    report = _report(models, engines, golden, measured, seconds, outcomes, quantised, gate)
    report["check"] = {"name": checks.name, "streams": checks.count}
    built = BuiltLadder((), {}, {})
    if ladder:
        built = build_ladder(student, fp32, engines[report["chosen"]["precision"]], checks, tell)
        report["ladder"] = built.about

    def fill(folder: Path) -> dict[str, Any]:
        for precision, model in models.items():
            onnx.save(model, folder / GRAPHS[precision])
        for name, variant in built.graphs.items():
            onnx.save(variant, folder / name)
        save_golden(golden, folder / GOLDEN)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        (folder / PAGE).write_text(page(report), "utf-8")
        if (checkpoint / SEEN).is_file():
            shutil.copyfile(checkpoint / SEEN, folder / SEEN)
        return {
            "chosen": report["chosen"],
            "created": report["created"],
            "training": training,
            "calibration": {k: v for k, v in report["calibration"].items() if k != "ranges"},
            "metrics": {p: {"check": checks.name, **_known(report["precisions"][p]["accuracy"])} for p in models},
            "gate": {"max_drop": gate.max_drop, **{p: {"held": o.held, "why": o.why} for p, o in outcomes.items()}},
            **({"tensorrt": report["tensorrt"]} if "tensorrt" in report else {}),
            **({"ladder": _ladder_table(built)} if built.rungs else {}),
        }

    tell("writing the bundle")
    return bundles.write(out, config, {p: GRAPHS[p] for p in models}, fill), report


def _sound(model: onnx.ModelProto, precision: str) -> None:
    check(model)
    if precision in _TENSORRT:
        _hold_to_rules(model, precision)


def _measurable(model: onnx.ModelProto, config: StudentConfig, precision: str) -> Engine:
    graph = rounded(model) if precision == "trt-fp16" else model
    return OnnxEngine(graph.SerializeToString(), config, precision)


def _hold_parity(engine: Engine, golden: Golden) -> None:
    name, worst = max(compare(engine, golden).items(), key=lambda item: item[1]["max_abs"])
    if not worst["max_abs"] <= PARITY:
        raise ExportError(
            f"fp32 in ONNX Runtime differs from torch by {worst['max_abs']:.2e} in {name} (limit {PARITY:.0e}); "
            "no bundle was written. Please report this with your versions of torch and onnxruntime"
        )


def _measured(engines: dict[str, Engine], checks: CheckSet, what: str, tell: Tell) -> dict[str, Measured]:
    return measure(engines, checks.streams(), lambda done: tell(f"measuring accuracy, {what}", done, checks.count))


def _gated(
    quantised: Quantised,
    precision: str,
    measured: dict[str, Measured],
    gate: Gate,
    checks: CheckSet,
    golden: Golden,
    tell: Tell,
) -> Outcome:
    config = quantised.config

    def again(sites: Sequence[ConvSite]) -> Measured:
        engine = _measurable(quantised.build(precision, sites), config, precision)
        return _measured({precision: engine}, checks, f"{precision}, {len(sites)} units", tell)[precision]

    def speedup(sites: Sequence[ConvSite]) -> float:
        pair = {"fp32": quantised.model, precision: quantised.build(precision, sites)}
        seconds = timed({p: _measurable(m, config, p) for p, m in pair.items()}, golden.inputs)
        return percentiles(seconds["fp32"])["p50_ms"] / percentiles(seconds[precision])["p50_ms"]

    return hold(
        quantised.sites,
        measured[precision],
        measured["fp32"],
        gate,
        lambda: quantised.ranking(precision),
        again,
        # Only the CPU's speed can be judged here.
        speedup if gate.min_speedup is not None and precision == "int8" else None,
    )


def _report(
    models: dict[str, onnx.ModelProto],
    engines: dict[str, Engine],
    golden: Golden,
    measured: dict[str, Measured],
    seconds: dict[str, list[float]],
    outcomes: dict[str, Outcome],
    quantised: Quantised | None,
    gate: Gate,
) -> dict[str, Any]:
    accuracy = {p: measured[p].metrics.to_json() for p in models}
    latency = {p: percentiles(values) for p, values in seconds.items()}
    chosen, why = choose(accuracy, latency, gate.max_drop)
    if "int8" in outcomes and not outcomes["int8"].held:
        chosen, why = "fp32", f"INT8 was not written: {outcomes['int8'].why}; fp32 is used"
    tensorrt = for_tensorrt(accuracy, gate.max_drop)
    low = min(map(min, seconds.values())) * 1e3
    # A busy machine's slowest steps would press all others into one bar: the last bar holds what is slower.
    high = min(max(t["p99_ms"] for t in latency.values()), 3 * max(t["p50_ms"] for t in latency.values()))
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
        },
        "calibration": {} if quantised is None else quantised.about,
        "precisions": {
            p: {
                "bytes": m.ByteSize(),
                "nodes": len(m.graph.node),
                "parity": compare(engines[p], golden),
                "accuracy": accuracy[p],
                "reliability": measured[p].reliability,
                "latency": latency.get(p),
                "latency_histogram": None
                if p not in seconds
                else {"low_ms": round(low, 4), "high_ms": round(high, 4), "counts": histogram(seconds[p], low, high)},
                "memory": {"state_bytes": state_bytes(m), "resident": None if p in _TENSORRT else resident_bytes(m)},
            }
            for p, m in models.items()
        },
        "sensitivity": {} if quantised is None else quantised.sensitivities(),
        "gate": {
            "max_drop": gate.max_drop,
            "min_speedup": gate.min_speedup,
            "results": {p: o.to_json() for p, o in outcomes.items()},
        },
        "chosen": {"precision": chosen, "why": why},
        **({"tensorrt": tensorrt} if tensorrt else {}),
    }


def _known(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores that are numbers: TOML has no null, and a student that gets no event right has no time to the first one."""
    return {k: v for k, v in scores.items() if v is not None}


def _ladder_table(built: BuiltLadder) -> dict[str, Any]:
    return {"tick_ms": built.about["tick_ms"], "camera": built.about["camera"], **to_table(built.rungs)}


_TENSORRT = ("trt-int8", "trt-fp16")


def _hold_to_rules(model: onnx.ModelProto, precision: str) -> None:
    found = findings(model)
    if found:
        first = found[0]
        raise ExportError(
            f"the {precision} graph breaks TensorRT's rules {len(found)} times, "
            f"first {first.rule} at {first.unit}: {first.problem}; "
            "no bundle was written. This is a fault of clcr-edge, please report it"
        )


def choose(
    accuracy: dict[str, dict[str, Any]], latency: dict[str, dict[str, float]], max_drop: float = MAX_LOSS_POINTS
) -> tuple[str, str]:
    """The precision to run on this machine, and a sentence that says why."""
    if "int8" not in accuracy:
        return "fp32", "only fp32 was exported for the CPU; --int8 adds INT8"
    lost, change = _change(accuracy, "int8")
    ratio = latency["fp32"]["p50_ms"] / latency["int8"]["p50_ms"]
    moved = f"INT8 {change} (n = {accuracy['int8']['n_events']} events)"
    speed = f"runs at {ratio:.2f}x the speed of fp32 here (p50, interleaved)"
    if lost > max_drop:
        return "fp32", f"{moved}, more than {max_drop} allowed, and {speed}: fp32 is used"
    if ratio <= 1.0:
        return "fp32", f"{moved} but {speed}, so it is slower: fp32 is used"
    return "int8", f"{moved} and {speed}: INT8 is used"


def for_tensorrt(accuracy: dict[str, dict[str, Any]], max_drop: float = MAX_LOSS_POINTS) -> dict[str, Any]:
    """Which TensorRT graphs hold accuracy, and a sentence that says so; empty where there are none."""
    there = [p for p in _TENSORRT if p in accuracy]
    if not there:
        return {}
    changes = {p: _change(accuracy, p) for p in there}
    told = ", ".join(f"{p} {change}" for p, (_, change) in changes.items())
    return {
        "holding": [p for p, (lost, _) in changes.items() if lost <= max_drop],
        "why": f"for TensorRT: {told} (n = {accuracy['fp32']['n_events']} events, {max_drop} points may be lost); "
        "which is faster is measured on the device",
    }


def _change(accuracy: dict[str, dict[str, Any]], precision: str) -> tuple[float, str]:
    """Points of event accuracy that a precision loses against fp32, and that in words."""
    lost = 100.0 * (accuracy["fp32"]["event_accuracy"] - accuracy[precision]["event_accuracy"])
    if lost == 0:
        return lost, "keeps the event accuracy"
    return lost, f"{'loses' if lost > 0 else 'gains'} {abs(lost):.2f} points of event accuracy"
