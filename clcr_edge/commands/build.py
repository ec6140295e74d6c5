"""`clcr-edge build`: engines of a bundle, TensorRT's or the native one, built on the device that will run them."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clcr_edge.bundle import Bundle


class Built(str, Enum):
    """What can be built."""

    tensorrt = "tensorrt"
    native = "native"


def build(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory [default: the one in ./out]")] = None,
    engine: Annotated[Built, typer.Option(help="TensorRT's for a GPU, or a C function for this CPU.")] = Built.tensorrt,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="fp32|fp16|int8", help="May be repeated. [default: all that the bundle has]")
    ] = None,
    workspace: Annotated[int, typer.Option(min=16, metavar="MIB", help="TensorRT's scratch memory, at most.")] = 256,
    level: Annotated[int, typer.Option(min=0, max=5, help="TensorRT's effort; more takes longer.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Build although the engine fits, or memory looks short.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Build engines on this device; engines that fit are left alone. TensorRT's are kept in the bundle, the native one in your
    cache.

    A TensorRT engine that another TensorRT or GPU built is named and built again. Ctrl-C ends a build and keeps the old engine.
    """
    from clcr_edge import bundle as bundles
    from clcr_edge.commands.building import telling
    from clcr_edge.errors import EngineError
    from clcr_edge.export.tensorrt_ready import BuildSettings, TensorRTMachine, ready_engine
    from clcr_edge.runtime.assets import default_bundle
    from clcr_edge.runtime.tensorrt_graphs import tensorrt_graph, tensorrt_precisions
    from clcr_edge.runtime.tensorrt_store import folder_of

    loaded = bundles.read(bundle or default_bundle())
    if engine is Built.native:
        _build_native(loaded, precision or [], force, as_json)
        return
    wanted = list(dict.fromkeys(precision or tensorrt_precisions(loaded)))
    for p in wanted:
        tensorrt_graph(loaded, p)  # a wrong name is told before anything starts
    if not wanted:
        raise EngineError(f"{loaded.path}: holds no graph for TensorRT; export it again: clcr-edge export --target tensorrt")
    machine = TensorRTMachine()
    settings = BuildSettings(workspace, level, force)
    report = []
    with telling() as teller:
        for p in wanted:
            stored, built = ready_engine(machine, loaded, p, settings, teller)
            report.append(
                {
                    "precision": p,
                    "built": built,
                    "typing": stored.typing,
                    "seconds": round(stored.seconds, 1),
                    "bytes": len(stored.plan),
                    "key": vars(stored.key),
                }
            )
    if as_json:
        typer.echo(json.dumps({"bundle": str(loaded.path), "machine": machine.line, "engines": report}))
        return
    typer.echo(f"{folder_of(loaded)}: {machine.line}")
    for row in report:
        done = f"built in {row['seconds']} s" if row["built"] else "fits, nothing to do"
        typer.echo(f"{row['precision']}: {done}, {row['typing']} typing, {int(str(row['bytes'])) / 1e6:.2f} MB")


def _build_native(bundle: Bundle, precisions: list[str], force: bool, as_json: bool) -> None:
    from clcr_edge.commands.engines import native_line
    from clcr_edge.export.native.ready import PRECISION, ready_step

    wanted = next((p for p in precisions if p != PRECISION), PRECISION)  # another one is refused by name
    stored, built = ready_step(bundle, wanted, lambda text: typer.echo(f"clcr-edge: {text}", err=True), force)
    row = {
        "precision": PRECISION,
        "built": built,
        "compiler": stored.compiler,
        "seconds": round(stored.seconds, 2),
        "bytes": stored.library.stat().st_size + len(stored.weights),
        "difference": stored.difference,
    }
    if as_json:
        typer.echo(json.dumps({"bundle": str(bundle.path), "machine": native_line(), "engines": [row]}))
        return
    done = f"built in {stored.seconds:.1f} s" if built else "fits, nothing to do"
    typer.echo(f"{stored.library.parent}: {native_line()}, {stored.compiler}")
    typer.echo(f"{PRECISION}: {done}, {int(str(row['bytes'])) / 1e6:.2f} MB, off by {stored.difference:.1e} from ONNX Runtime")
