"""Ours beside nvidia-modelopt's INT8 of the same fp32 step graph: size, accuracy, Q/DQ, state error, CPU latency.

    python benchmarks/modelopt_int8.py --root DIR          # DIR: fsdd/ and mnist/, as for clcr-edge train digits

Both are calibrated on the same streams of the project's own, states rolled out (ours on every tick, modelopt on every Nth: it
keeps all activations of all feeds in memory), and measured by the same code: event accuracy on the project's check streams and
on streams of MNIST and FSDD that training never saw, Q/DQ nodes, findings of `clcr-edge check`, the largest difference of the
state from fp32's after one step from the same state and over a rolled-out stream, and latency interleaved in one process.

modelopt gets an environment of its own (--venv; made if it is not there). torch is taken from the environment that runs this:
modelopt would pull the CUDA build, and needs it here only to be imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import typer

from clcr_edge.calibration.sets import CalibrationSet, CheckSet, digits_sets, own_sets
from clcr_edge.calibration.streams import inputs_of
from clcr_edge.config import StudentConfig
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.export.graph import export_step
from clcr_edge.export.half import to_half
from clcr_edge.export.latency import percentiles, timed
from clcr_edge.export.measure import measure
from clcr_edge.export.quantised import calibrated
from clcr_edge.export.rounded import rounded
from clcr_edge.export.rules.check import findings
from clcr_edge.runtime.assets import shipped
from clcr_edge.runtime.engine import Engine, StepInputs
from clcr_edge.runtime.machine import cpu_name
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.checkpoint import load_student

MODELOPT = "0.47.0"
# What modelopt.onnx imports, at the versions that it asks for. No cupy, no onnxruntime-gpu: there is no GPU here.
PACKAGES = (
    f"nvidia-modelopt=={MODELOPT}", "onnx==1.21.0", "onnxruntime==1.24.2", "onnxconverter-common==1.16.0",
    "onnx-graphsurgeon==0.6.1", "onnxslim==0.1.98", "polygraphy==0.53.6", "onnxscript==0.7.2",
    "onnx-ir", "ml_dtypes", "lief", "cppimport", "omegaconf",
    "antlr4-python3-runtime==4.9.3", "PyYAML", "PuLP<4", "regex", "scipy", "nvidia-ml-py", "ninja", "colorama", "mako",
    "pybind11", "flatbuffers", "protobuf", "packaging", "tqdm", "setuptools>=80", "numpy",
)  # fmt: skip
# Its default method, what NVIDIA's tools for TensorRT 11 use, and its default on convolutions only, as ours.
VARIANTS = {"modelopt-entropy": ("entropy", "all"), "modelopt-max": ("max", "all"), "modelopt-conv": ("entropy", "Conv")}
VENV = Path(tempfile.gettempdir(), "modelopt-env")
SOURCE = Path(__file__).with_name("modelopt_quantise.py")
ABOUT = {
    "fp32": "ours, fp32",
    "trt-fp16": "ours, FP16 for TensorRT",
    "int8": "ours, INT8 for CPUs",
    "trt-int8": "ours, INT8 for TensorRT",
    "modelopt-entropy": f"modelopt {MODELOPT}, INT8, as it comes (entropy)",
    "modelopt-max": f"modelopt {MODELOPT}, INT8, max",
    "modelopt-conv": f"modelopt {MODELOPT}, INT8, entropy, told to leave all but convolutions",
}
NOT_FOR_CPUS = ("trt-fp16",)  # its accuracy is measured on a twin that rounds to FP16, whose speed means nothing


def environment(folder: Path) -> Path:
    """modelopt's interpreter; the environment is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "pydantic"], check=True)
        site = next((folder / "lib").glob("python*")) / "site-packages"
        (site / "torch_of_clcr_edge.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")  # after its own packages
    return python


class Unfused(OnnxEngine):
    """A graph whose Q/DQ pairs ONNX Runtime cannot fuse into integer kernels, run as it is written: in float, between them."""

    def __init__(self, graph: bytes, config: StudentConfig, precision: str) -> None:
        super().__init__(graph, config, precision)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def feeds_of(engine: OnnxEngine, calibration: CalibrationSet, every: int) -> dict[str, np.ndarray]:
    """Every Nth feed of the calibration streams, states rolled out by fp32: `{input: [N, ...]}`."""
    rows: list[dict[str, np.ndarray]] = []
    for stream in calibration.streams(engine.config):
        state = engine.initial_state()
        for tick, inputs in enumerate(stream):
            if tick % every == every - 1:
                rows.append({**{f.name: getattr(inputs, f.name) for f in fields(StepInputs)}, **state})
            _, state = engine.step(inputs, state)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def state_errors(engines: Mapping[str, Engine], ticks: Iterator[StepInputs]) -> dict[str, dict[str, Any]]:
    """Largest difference of any state from fp32's: after one step from fp32's state, and with states rolled out.

    reach: the largest magnitude of the state where the error was. rms: of the rolled-out difference over all ticks, relative to
    the state's own, of the worst state.
    """
    reference = engines["fp32"]
    truth = reference.initial_state()
    own = {name: reference.initial_state() for name in engines}
    worst = {name: {"one_step": (0.0, ""), "rolled_out": (0.0, "")} for name in engines}
    reach: Counter[str] = Counter()
    error: Counter[tuple[str, str]] = Counter()
    power: Counter[str] = Counter()
    count = 0
    for inputs in ticks:
        _, new = reference.step(inputs, truth)
        for name, engine in engines.items():
            once = engine.step(inputs, truth)[1]
            own[name] = engine.step(inputs, own[name])[1]
            for kind, found in (("one_step", once), ("rolled_out", own[name])):
                for key, value in found.items():
                    worst[name][kind] = max(worst[name][kind], (float(np.abs(value - new[key]).max(initial=0.0)), key))
                    if kind == "rolled_out":
                        error[name, key] += float(np.square(value - new[key], dtype=np.float64).sum())
        for key, value in new.items():
            power[key] += float(np.square(value, dtype=np.float64).sum())
            reach[key] = max(reach[key], float(np.abs(value).max(initial=0.0)))
        truth, count = new, count + 1
    return {
        name: {
            "ticks": count,
            **{k: {"max_abs": v, "state": s, "reach": reach.get(s, 0.0)} for k, (v, s) in found.items()},
            "rolled_out_rms": max((error[name, key] / max(total, 1e-30)) ** 0.5 for key, total in power.items()),
        }
        for name, found in worst.items()
    }


def main(
    root: Annotated[Path, typer.Option(help="fsdd/recordings/*.wav and mnist/*-ubyte.gz")],
    checkpoint: Annotated[Path | None, typer.Argument(help="None: the student that ships")] = None,
    venv_folder: Annotated[Path, typer.Option("--venv", help="modelopt's environment, made if it is not there")] = VENV,
    out: Annotated[Path, typer.Option(help="JSON")] = Path("benchmarks/results/modelopt_int8.json"),
    page: Annotated[Path, typer.Option(help="Markdown")] = Path("docs/precision.md"),
    every: Annotated[int, typer.Option(help="modelopt is calibrated on every Nth tick")] = 12,
    streams: Annotated[int, typer.Option(help="check streams of 20 s, of each of the two sets")] = 36,
    rounds: int = 600,
) -> None:
    """Measure, and write the JSON and the page."""
    source = checkpoint or shipped("digits-student")
    assert source is not None
    python = environment(venv_folder)
    student, _ = load_student(source)
    config = student.config
    calibration, own = own_sets(check_streams=streams)
    seen = Seen.load(source / FILE) if (source / FILE).is_file() else None
    digits = digits_sets(root, seen, streams)[1]
    fp32 = export_step(student)
    reference = OnnxEngine(fp32.SerializeToString(), config, "fp32")
    ticks = list(islice(next(calibration.streams(config)), 250))

    quantised = calibrated(fp32, config, calibration, ["int8", "trt-int8"], ticks, 0, False, lambda *_: None)
    models = {"fp32": fp32, "trt-fp16": to_half(fp32)}
    models |= {p: quantised.build(p, quantised.sites) for p in ("int8", "trt-int8")}
    with tempfile.TemporaryDirectory() as scratch:
        onnx.save(fp32, f"{scratch}/fp32.onnx")
        feeds = feeds_of(reference, calibration, every)
        count = len(next(iter(feeds.values())))
        np.savez(f"{scratch}/feeds.npz", allow_pickle=False, **feeds)
        for name, choice in VARIANTS.items():
            print(f"{ABOUT[name]}, {count} feeds", file=sys.stderr)
            command = [python, SOURCE, f"{scratch}/fp32.onnx", f"{scratch}/feeds.npz", *choice, f"{scratch}/{name}.onnx"]
            subprocess.run(command, check=True, cwd=scratch)
            models[name] = onnx.load(f"{scratch}/{name}.onnx")

    engines: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    for name, model in models.items():
        graph = (rounded(model) if name in NOT_FOR_CPUS else model).SerializeToString()
        engines[name] = OnnxEngine(graph, config, name)
        try:
            engines[name].step(ticks[0], engines[name].initial_state())
        except Exception as e:  # onnxruntime's errors share no public root
            refused[name] = str(e).splitlines()[0][:400]
            engines[name] = Unfused(graph, config, name)
    print("latency", file=sys.stderr)
    runnable = {n: e for n, e in engines.items() if n not in NOT_FOR_CPUS and n not in refused}
    seconds = timed(runnable, ticks, rounds)
    print("state errors", file=sys.stderr)
    errors = state_errors(engines, chain(*(inputs_of(s, config) for s in islice(own.streams(), 2))))
    scores = {}
    for key, checks in (("own", own), ("digits", digits)):
        scores[key] = scored(engines, checks)
    report = {
        "command": "python benchmarks/modelopt_int8.py --root DIR",
        "checkpoint": str(checkpoint or "the student that ships"),
        "machine": cpu_name(),
        "versions": {p: version(p) for p in ("onnxruntime", "onnx", "torch")} | {"nvidia-modelopt": MODELOPT},
        "calibration": {"source": calibration.name, "ticks": calibration.ticks, "modelopt_feeds": count},
        "checks": {"own": own.name, "digits": digits.name},
        "refused_by_onnxruntime": refused,
        "rows": {name: row(name, models[name], seconds, errors[name], scores) for name in models},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    page.write_text(markdown(report), "utf-8")
    print(markdown(report))


def scored(engines: Mapping[str, Engine], checks: CheckSet) -> dict[str, dict[str, Any]]:
    """Event accuracy of every engine over the same streams, and the events that changed sides against fp32."""
    found = measure(engines, checks.streams(), lambda done: print(f"{checks.name[:40]} {done}/{checks.count}", file=sys.stderr))
    return {n: {**m.metrics.to_json(), "against_fp32": m.lost(found["fp32"])} for n, m in found.items()}


def row(
    name: str,
    model: onnx.ModelProto,
    seconds: dict[str, list[float]],
    errors: dict[str, Any],
    scores: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    """One graph's figures. speed: how many times as fast as fp32, by the medians of interleaved steps."""
    kinds = Counter(node.op_type for node in model.graph.node)
    broken = findings(model)
    latency = percentiles(seconds[name]) if name in seconds else None
    return {
        "what": ABOUT[name],
        "bytes": model.ByteSize(),
        "quantize": kinds["QuantizeLinear"],
        "dequantize": kinds["DequantizeLinear"],
        "nodes": len(model.graph.node),
        "tensorrt_findings": dict(Counter(f.rule for f in broken)),
        "latency": latency,
        "speed": None if latency is None else round(float(np.median(seconds["fp32"]) / np.median(seconds[name])), 3),
        "state_error": errors,
        "accuracy": {key: found[name] for key, found in scores.items()},
    }


def markdown(report: dict[str, Any]) -> str:
    """The page: two tables and what they rest on."""
    rows: dict[str, Any] = report["rows"]
    n = {key: rows["fp32"]["accuracy"][key]["n_events"] for key in ("own", "digits")}
    lines = [
        "# Precision: what each graph is worth, and what nvidia-modelopt makes of the same one",
        "",
        "Written by `" + report["command"] + "`; numbers in `benchmarks/results/modelopt_int8.json`. Do not edit.",
        f"{report['machine']}; " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + ".",
        "",
        f"| graph | size | event accuracy, own check streams (n = {n['own']}) | event accuracy, digits (n = {n['digits']}) "
        "| one tick on the CPU, p50 / p90 (n = {}) | against fp32 |".format(rows["fp32"]["latency"]["n"]),
        "|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        t = r["latency"]
        cells = [r["what"], f"{r['bytes'] / 1e6:.2f} MB"]
        cells += [f"{100 * r['accuracy'][k]['event_accuracy']:.1f} %{_moved(r['accuracy'][k])}" for k in ("own", "digits")]
        cells += [f"{t['p50_ms']:.2f} / {t['p90_ms']:.2f} ms", f"{r['speed']:.2f}x"] if t else [
            "not for CPUs" if name in NOT_FOR_CPUS else "ONNX Runtime stops", ""
        ]
        lines.append("| " + " | ".join(cells) + " |")
    e = rows["fp32"]["state_error"]["ticks"]
    lines += [
        "",
        "In brackets: events that were right in fp32 and no longer are, and the other way round. Latencies are interleaved in "
        "one process on one thread.",
        "",
        f"| graph | Q | DQ | `clcr-edge check` | state error, one step | rolled out, {e} steps | of that, rms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        s = r["state_error"]
        found = sum(r["tensorrt_findings"].values())
        told = "not meant for TensorRT" if name == "int8" else "no finding" if not found else _listed(r["tensorrt_findings"])
        one, rolled = s["one_step"], s["rolled_out"]
        cells = [r["what"], str(r["quantize"]), str(r["dequantize"]), told]
        cells += [f"{one['max_abs']:.1e} of {one['reach']:.1f}", f"{rolled['max_abs']:.1e} of {rolled['reach']:.1f}"]
        lines.append("| " + " | ".join([*cells, f"{100 * s['rolled_out_rms']:.2f} %"]) + " |")
    if refused := report["refused_by_onnxruntime"]:
        lines += [
            "",
            f"ONNX Runtime stops in {' and '.join(ABOUT[name] for name in refused)} at the first step: modelopt gives batched "
            "weights (`[2, 192, 64]`) one scale per row of the axis that the product sums over, for which there is no integer "
            "kernel. Their accuracy and state errors are measured with the fusion of Q/DQ switched off; their speed cannot be.",
        ]
    c = report["calibration"]
    lines += [
        "",
        "State error: the largest difference of any state from that of fp32, after one step from the same state, and while "
        'each graph goes on from its own states; "of" is the largest magnitude of that state; rms is the rolled-out difference '
        "over all steps against the state's own, of the worst state.",
        "",
        f"Calibrated on {c['source']}: ours on all {c['ticks']} ticks, modelopt on {c['modelopt_feeds']} of them (it keeps "
        "every activation of every feed in memory), states rolled out by fp32. modelopt's settings are its defaults, but "
        "float32 for what it leaves in float. Accuracy is measured in ONNX Runtime; FP16 on a twin that rounds to FP16.",
        f"Own check streams: {report['checks']['own']}. Digits: {report['checks']['digits']}.",
    ]
    return "\n".join(lines) + "\n"


def _moved(scores: dict[str, Any]) -> str:
    moved = scores["against_fp32"]
    return f" (-{moved['events_lost']} +{moved['events_gained']})" if moved["events_lost"] or moved["events_gained"] else ""


def _listed(found: dict[str, int]) -> str:
    return ", ".join(f"{count} x {rule}" for rule, count in found.items())


if __name__ == "__main__":
    typer.run(main)
