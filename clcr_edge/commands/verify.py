"""`clcr-edge verify`: proof of a bundle on this machine, on one page that can be sent to us."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clcr_edge.commands.engines import EngineName
from clcr_edge.errors import EngineError

if TYPE_CHECKING:
    from clcr_edge.bundle import Bundle
    from clcr_edge.runtime.engine import Engine


def verify(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory [default: the one in ./out]")] = None,
    engine: Annotated[EngineName, typer.Option(help="What runs the graphs.")] = EngineName.onnxruntime,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated. [default: all there are]")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long to step at the stream's pace, for each precision.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=10, help="Steps back to back, for each precision.")] = 400,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run golden vectors through the engine, measure latency back to back and at the stream's pace, choose the precision.

    The choice is stored beside the manifest and followed by `clcr-edge run` on this machine. Exit code 1 if none holds.
    """
    from clcr_edge import bundle as bundles
    from clcr_edge.export.verify import lost_at_export
    from clcr_edge.export.verify import verify as verify_engines
    from clcr_edge.runtime.assets import default_bundle
    from clcr_edge.runtime.device_record import Verified, forget_verified, manifest_hash, write_verified
    from clcr_edge.runtime.golden import FILE as GOLDEN
    from clcr_edge.runtime.golden import load_golden
    from clcr_edge.runtime.machine import machine_table
    from clcr_edge.runtime.tensorrt_graphs import GRAPHS

    loaded = bundles.read(bundle or default_bundle())
    golden = load_golden(loaded.path / GOLDEN)
    wanted = None if precision is None else list(dict.fromkeys(precision))
    opened_by = {EngineName.tensorrt: _tensorrt, EngineName.native: _native, EngineName.onnxruntime: _onnxruntime}
    engines, about = opened_by[engine](loaded, wanted)
    rate_hz = loaded.config.tick.rate_hz
    graphs = GRAPHS if engine is EngineName.tensorrt else {}
    lost = {p: lost_at_export(loaded.manifest, graphs.get(p, p)) for p in engines}
    tell = _note if sys.stderr.isatty() else lambda _: None
    report = verify_engines(engines, golden, rate_hz, seconds, rounds, tell, lost)
    for name, opened in engines.items():
        graph = getattr(opened, "cuda_graph", None)
        if graph is not None:
            report["precisions"][name]["cuda_graph"] = graph
    digest = manifest_hash(loaded)
    report = {
        "bundle": loaded.path.name,
        "created": str(loaded.manifest.get("created", "unknown")),
        "manifest_sha256": digest,
        "engine": engine.value,
        "rate_hz": rate_hz,
        "about": about,
        "machine": machine_table(),
        **report,
    }
    chosen = report["chosen"]
    try:
        if chosen is None:
            forget_verified(loaded, engine.value)
        else:
            p50_ms = float(report["precisions"][chosen]["at_pace"]["p50_ms"])
            write_verified(loaded, Verified(engine.value, chosen, report["why"], p50_ms, about["line"], digest))
        report["stored"] = chosen is not None
    except EngineError as e:
        report["stored"] = False
        _note(f"the choice is not stored: {e}")
    typer.echo(json.dumps(report) if as_json else _page(report))
    if chosen is None:
        raise EngineError(f"{loaded.path}: no precision holds on {engine.value}: {report['why']}; please send us this page")


def _note(text: str) -> None:
    print(f"clcr-edge: {text}", file=sys.stderr)


def _onnxruntime(bundle: Bundle, wanted: list[str] | None) -> tuple[dict[str, Engine], dict[str, Any]]:
    from clcr_edge.commands.engines import onnxruntime_line
    from clcr_edge.runtime.onnx_engine import OnnxEngine
    from clcr_edge.runtime.tensorrt_graphs import cpu_precisions

    names = wanted or list(cpu_precisions(bundle))
    return {p: OnnxEngine.from_bundle(bundle, p) for p in names}, {"line": onnxruntime_line()}


def _native(bundle: Bundle, wanted: list[str] | None) -> tuple[dict[str, Engine], dict[str, Any]]:
    from clcr_edge.commands.engines import native_line
    from clcr_edge.export.native.ready import PRECISION, ready_step
    from clcr_edge.runtime.native_engine import NativeEngine

    for other in [p for p in wanted or () if p != PRECISION]:
        ready_step(bundle, other, _note)  # says what it can do
    stored, _ = ready_step(bundle, PRECISION, _note)
    made = {"compiler": stored.compiler, "seconds": stored.seconds, "difference": stored.difference}
    return {PRECISION: NativeEngine(stored, bundle.config)}, {"line": native_line(), "builds": {PRECISION: made}}


def _tensorrt(bundle: Bundle, wanted: list[str] | None) -> tuple[dict[str, Engine], dict[str, Any]]:
    from clcr_edge.commands.building import telling
    from clcr_edge.export.tensorrt_ready import BuildSettings, TensorRTMachine, ready_engine
    from clcr_edge.runtime.tensorrt_graphs import tensorrt_graph, tensorrt_precisions

    names = wanted or list(tensorrt_precisions(bundle))
    for p in names:
        tensorrt_graph(bundle, p)
    machine = TensorRTMachine()
    engines: dict[str, Engine] = {}
    about: dict[str, Any] = {"line": machine.line, "integrated": machine.device.integrated, "builds": {}}
    with telling() as teller:
        for p in names:
            try:
                stored, _ = ready_engine(machine, bundle, p, BuildSettings(), teller)
                engines[p] = machine.engine(bundle, p, stored)
            except EngineError as e:
                last = p == names[-1] and not engines
                if last or wanted is not None:  # nothing else to go on with, or this one was asked for
                    raise
                teller.note(f"{p} is left out: {e}")
                about["builds"][p] = {"refused": str(e)}
                continue
            about["builds"][p] = {"typing": stored.typing, "seconds": stored.seconds, "bytes": len(stored.plan)}
    return engines, about


def _page(report: dict[str, Any]) -> str:
    """The report as plain text, without colour: it is meant for a mail or an issue."""
    lines = [
        f"clcr-edge verify: {report['bundle']} of {report['created']}, manifest {report['manifest_sha256'][:12]}",
        f"engine   {report['engine']}: {report['about']['line']}",
        *(f"{name:8} {value}" for name, value in report["machine"].items()),
        "",
        f"golden vectors: {next(iter(report['precisions'].values()))['accuracy']['ticks']} ticks, states rolled out",
        "precision   holds  probs off by          worst output off by               label agrees",
    ]
    for name, found in report["precisions"].items():
        a = found["accuracy"]
        probs, worst = a["outputs"]["probs"], a["outputs"][a["worst_output"]]
        lines.append(
            f"{name:11} {'yes' if a['holds'] else 'NO':5}  {probs['max_abs']:.1e} ({probs['sqnr_db']:4.0f} dB)     "
            f"{worst['max_abs']:.1e} {a['worst_output']:24} {a['agreement']:.1%} of {a['clear_ticks']} clear ticks"
        )
    lines += ["", f"latency of a step in ms     back to back                    at {report['rate_hz']:g} Hz, the stream's pace"]
    lines += ["precision     p50     p90     p99     n          p50     p90     p99     n"]
    for name, found in report["precisions"].items():
        cells = []
        for kind in ("back_to_back", "at_pace"):
            t = found[kind]
            cells.append(f"{t['p50_ms']:7.3f} {t['p90_ms']:7.3f} {t['p99_ms']:7.3f} {t['n']:5}")
        graph = {True: "  CUDA graph", False: "  no CUDA graph"}.get(found.get("cuda_graph"), "")
        lines.append(f"{name:9} {cells[0]}      {cells[1]}{graph}")
    for name, made in report["about"].get("builds", {}).items():
        said = made.get("refused") or _built(made)
        lines.append(f"{name:9} {said}")
    lines += ["", f"chosen: {report['chosen'] or 'none'}: {report['why']}"]
    return "\n".join(lines)


def _built(made: dict[str, Any]) -> str:
    if "compiler" in made:
        return f"built in {made['seconds']:.1f} s by {made['compiler']}, off by {made['difference']:.1e} from ONNX Runtime"
    return f"{made['typing']} typing, built in {made['seconds']:.0f} s, {made['bytes'] / 1e6:.2f} MB"
