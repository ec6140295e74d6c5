"""`clcr-edge build`: TensorRT engines of a bundle, built on the device that will run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def build(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory [default: the one in ./out]")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="fp32|fp16|int8", help="May be repeated. [default: all that the bundle has]")
    ] = None,
    workspace: Annotated[int, typer.Option(min=16, metavar="MIB", help="TensorRT's scratch memory, at most.")] = 256,
    level: Annotated[int, typer.Option(min=0, max=5, help="TensorRT's effort; more takes longer.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Build although the engine fits, or memory looks short.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Build TensorRT engines on this device and keep them in the bundle; engines that fit are left alone.

    An engine that another TensorRT or GPU built is named and built again. Ctrl-C ends a build and keeps the old engine.
    """
    from clcr_edge import bundle as bundles
    from clcr_edge.commands.building import telling
    from clcr_edge.errors import EngineError
    from clcr_edge.export.tensorrt_ready import BuildSettings, TensorRTMachine, ready_engine
    from clcr_edge.runtime.assets import default_bundle
    from clcr_edge.runtime.tensorrt_graphs import tensorrt_graph, tensorrt_precisions
    from clcr_edge.runtime.tensorrt_store import folder_of

    loaded = bundles.read(bundle or default_bundle())
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
