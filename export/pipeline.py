"""Checkpoint -> bundle: export, calibrate, quantise, prove, choose. Nothing is handed over that has not been measured.

    student --graph--> step.fp32.onnx --observe on streams--> ranges --qdq--> step.int8.onnx              target cpu
       |                     |                                   \\--symmetric--> step.trt-int8.onnx      target tensorrt
       |                     \\--half--> step.trt-fp16.onnx, held to TensorRT's rules as the line above
       \\--golden--> golden.npz         parity, event accuracy, latency of each --> report.json, chosen precision
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import onnx
import onnxruntime as ort

from clcr_edge import bundle as bundles
from clcr_edge.bundle import Bundle
from clcr_edge.calibration.observe import observe
from clcr_edge.calibration.qdq import quantise
from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.sets import CalibrationSet, CheckSet
from clcr_edge.calibration.symmetric import quantise_symmetric
from clcr_edge.calibration.units import ConvSite, conv_sites
from clcr_edge.config import StudentConfig
from clcr_edge.data.seen import FILE as SEEN
from clcr_edge.data.streams import Stream
from clcr_edge.errors import ExportError
from clcr_edge.export.golden import compare, make_golden, save_golden
from clcr_edge.export.graph import check, export_step
from clcr_edge.export.half import to_half
from clcr_edge.export.latency import interleaved
from clcr_edge.export.rounded import rounded
from clcr_edge.export.rules.check import findings
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.checkpoint import load_student
from clcr_edge.train.evaluate import score

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
GOLDEN, REPORT = "golden.npz", "report.json"
PARITY = 1e-4  # largest difference of any fp32 output from torch over the golden ticks
MAX_LOSS_POINTS = 0.5  # INT8 may lose this much event accuracy and still be chosen
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
) -> tuple[Bundle, dict[str, Any]]:
    """Write the bundle to `out`; returns it and the report.

    int8: for target "cpu", also an INT8 graph. target: "cpu", "tensorrt" (an INT8 and an FP16 graph beside fp32) or "both".
    Raises `ExportError` if fp32 does not match torch, or a graph breaks a rule of TensorRT.
    """
    bundles.check_target(out)
    tell("reading the checkpoint")
    student, training = load_student(checkpoint)
    config = student.config
    tell("exporting the step graph")
    fp32 = export_step(student)
    models = {"fp32": fp32}
    calibrated: dict[str, Any] = {}
    wanted = [
        *(["int8"] if int8 and target in ("cpu", "both") else []),
        *(["trt-int8", "trt-fp16"] if target in ("tensorrt", "both") else []),
    ]
    if "int8" in wanted or "trt-int8" in wanted:
        sites, ranges, calibrated = _calibrated(fp32, config, calibration, tell)
        calibrated["schemes"] = {p: SCHEMES[p] for p in wanted}
        models |= {p: m(fp32, sites, ranges) for p, m in _QUANTISERS.items() if p in wanted}
    if "trt-fp16" in wanted:
        models["trt-fp16"] = to_half(fp32)
    for precision in wanted:
        check(models[precision])
        if precision in _TENSORRT:
            _hold_to_rules(models[precision], precision)

    tell("writing golden vectors")
    first = next(calibration.streams(config))
    golden = make_golden(student, islice(first, _GOLDEN_TICKS))
    measured = {p: rounded(m) if p == "trt-fp16" else m for p, m in models.items()}
    engines: dict[str, Engine] = {p: OnnxEngine(m.SerializeToString(), config, p) for p, m in measured.items()}
    parity = {p: compare(e, golden) for p, e in engines.items()}
    worst = max(parity["fp32"].items(), key=lambda item: item[1]["max_abs"])
    if not worst[1]["max_abs"] <= PARITY:
        raise ExportError(
            f"fp32 in ONNX Runtime differs from torch by {worst[1]['max_abs']:.2e} in {worst[0]} (limit {PARITY:.0e}); "
            "no bundle was written. Please report this with your versions of torch and onnxruntime"
        )
    accuracy = {p: _accuracy(e, checks, p, tell) for p, e in engines.items()}
    tell("measuring latency, interleaved")
    # A CPU's time says nothing about TensorRT's: that is measured on the device, never guessed.
    latency = interleaved({p: e for p, e in engines.items() if p not in _TENSORRT}, golden.inputs)
    chosen, why = choose(accuracy, latency)
    tensorrt = for_tensorrt(accuracy)
    report = {
        "machine": {
            "cpu": _cpu(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
        },
        "calibration": calibrated,
        "check": {"name": checks.name, "streams": checks.count},
        "precisions": {
            p: {
                "bytes": models[p].ByteSize(),
                "nodes": len(models[p].graph.node),
                "parity": parity[p],
                "accuracy": accuracy[p],
                "latency": latency.get(p),
            }
            for p in models
        },
        "chosen": {"precision": chosen, "why": why},
        **({"tensorrt": tensorrt} if tensorrt else {}),
    }

    def fill(folder: Path) -> dict[str, Any]:
        for precision, model in models.items():
            onnx.save(model, folder / GRAPHS[precision])
        save_golden(golden, folder / GOLDEN)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        if (checkpoint / SEEN).is_file():
            shutil.copyfile(checkpoint / SEEN, folder / SEEN)
        return {
            "chosen": report["chosen"],
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "training": training,
            "calibration": {k: v for k, v in calibrated.items() if k != "ranges"},
            "metrics": {p: {"check": checks.name, **_known(accuracy[p])} for p in models},
            **({"tensorrt": tensorrt} if tensorrt else {}),
        }

    tell("writing the bundle")
    return bundles.write(out, config, {p: GRAPHS[p] for p in models}, fill), report


def _known(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores that are numbers: TOML has no null, and a student that gets no event right has no time to the first one."""
    return {k: v for k, v in scores.items() if v is not None}


_TENSORRT = ("trt-int8", "trt-fp16")
_QUANTISERS = {"int8": quantise, "trt-int8": quantise_symmetric}


def _hold_to_rules(model: onnx.ModelProto, precision: str) -> None:
    found = findings(model)
    if found:
        first = found[0]
        raise ExportError(
            f"the {precision} graph breaks TensorRT's rules {len(found)} times, "
            f"first {first.rule} at {first.unit}: {first.problem}; "
            "no bundle was written. This is a fault of clcr-edge, please report it"
        )


def _calibrated(
    fp32: onnx.ModelProto, config: StudentConfig, calibration: CalibrationSet, tell: Tell
) -> tuple[list[ConvSite], dict[str, Range], dict[str, Any]]:
    sites = conv_sites(fp32)
    if not sites:
        raise ExportError("found no convolution to quantise in the step graph; this is a fault of clcr-edge, please report it")
    tensors = {s.source: s.modality for s in sites} | {s.result: s.modality for s in sites}
    ranges, ticks = observe(
        fp32,
        config,
        tensors,
        calibration.streams(config),
        lambda done: tell("calibrating", done, calibration.ticks),
    )
    about = {
        "source": calibration.name,
        "ticks": ticks,
        "int8_units": [s.unit for s in sites],
        "float_units": ["tcn", "words", "intraced", "intercad", "head"],
        "ranges": {s.unit: [round(ranges[s.source].low, 4), round(ranges[s.source].high, 4)] for s in sites},
    }
    return sites, ranges, about


def _accuracy(engine: Engine, checks: CheckSet, precision: str, tell: Tell) -> dict[str, Any]:
    def counted() -> Iterator[Stream]:
        for index, stream in enumerate(checks.streams()):
            tell(f"measuring accuracy, {precision}", index, checks.count)
            yield stream

    return score(engine, counted()).to_json()


def choose(accuracy: dict[str, dict[str, Any]], latency: dict[str, dict[str, float]]) -> tuple[str, str]:
    """The precision to run on this machine, and a sentence that says why."""
    if "int8" not in accuracy:
        return "fp32", "only fp32 was exported for the CPU; --int8 adds INT8"
    lost, change = _change(accuracy, "int8")
    ratio = latency["fp32"]["p50_ms"] / latency["int8"]["p50_ms"]
    moved = f"INT8 {change} (n = {accuracy['int8']['n_events']} events)"
    speed = f"runs at {ratio:.2f}x the speed of fp32 here (p50, interleaved)"
    if lost > MAX_LOSS_POINTS:
        return "fp32", f"{moved}, more than {MAX_LOSS_POINTS} allowed, and {speed}: fp32 is used"
    if ratio <= 1.0:
        return "fp32", f"{moved} but {speed}, so it is slower: fp32 is used"
    return "int8", f"{moved} and {speed}: INT8 is used"


def for_tensorrt(accuracy: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Which TensorRT graphs hold accuracy, and a sentence that says so; empty where there are none."""
    there = [p for p in _TENSORRT if p in accuracy]
    if not there:
        return {}
    changes = {p: _change(accuracy, p) for p in there}
    told = ", ".join(f"{p} {change}" for p, (_, change) in changes.items())
    return {
        "holding": [p for p, (lost, _) in changes.items() if lost <= MAX_LOSS_POINTS],
        "why": f"for TensorRT: {told} (n = {accuracy['fp32']['n_events']} events, {MAX_LOSS_POINTS} points may be lost); "
        "which is faster is measured on the device",
    }


def _change(accuracy: dict[str, dict[str, Any]], precision: str) -> tuple[float, str]:
    """Points of event accuracy that a precision loses against fp32, and that in words."""
    lost = 100.0 * (accuracy["fp32"]["event_accuracy"] - accuracy[precision]["event_accuracy"])
    if lost == 0:
        return lost, "keeps the event accuracy"
    return lost, f"{'loses' if lost > 0 else 'gains'} {abs(lost):.2f} points of event accuracy"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names: Sequence[str] = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
