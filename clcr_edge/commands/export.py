"""`clcr-edge export`: a trained student -> a bundle that proves itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clcr_edge import bundle as bundles
from clcr_edge.commands.train import missing_train
from clcr_edge.errors import ExportError, UsageError
from clcr_edge.outputs import check_folder
from clcr_edge.runtime.assets import shipped

if TYPE_CHECKING:
    from rich.table import Table


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint folder. None: the student that ships with clcr-edge.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = Path("out/digits-bundle"),
    int8: Annotated[bool, typer.Option("--int8", help="Also an INT8 graph for the CPU; measure whether it pays.")] = False,
    target: Annotated[
        str, typer.Option(metavar="cpu|tensorrt|both", help="tensorrt: an INT8 and an FP16 graph beside fp32.")
    ] = "cpu",
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of recordings to calibrate on, in place of the project's own streams.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Calibrate and check on a data set: digits (needs --root).")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set.", show_default=False)] = None,
    max_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Points of event accuracy that INT8 may lose.", show_default=True)
    ] = 0.5,
    min_speedup: Annotated[
        float | None, typer.Option(metavar="X", help="INT8 must run at X times the speed of fp32 on this CPU [default: off]")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity/--no-sensitivity", help="Measure what INT8 does to each unit.")
    ] = True,
    sensitivity_ticks: Annotated[int, typer.Option(metavar="N", help="Ticks to measure that on.")] = 500,
    ladder: Annotated[
        bool, typer.Option("--ladder/--no-ladder", help="Measure what a device that is too slow may leave out.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object on stdout.")] = False,
) -> None:
    """Export the step graph, calibrate and quantise it, measure each precision, and write the bundle.

    Units that cost INT8 too much accuracy go back to float. If no INT8 graph holds, none is written, the bundle keeps its float
    graphs, and the exit code is 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from clcr_edge.data.seen import FILE as SEEN
    from clcr_edge.data.seen import Seen

    if target not in ("cpu", "tensorrt", "both"):
        raise UsageError(f"no target called {target!r}; choose cpu, tensorrt or both")
    if data not in (None, "digits"):
        raise UsageError(f"no data set called {data!r}; choose digits")
    if (data is None) != (root is None):
        raise UsageError("--data and --root go together: --data digits --root DIR")
    if calibration is not None and data is not None:
        raise UsageError("--calibration and --data exclude each other: calibrate on recordings or on a data set")
    if min_speedup is not None and not (int8 and target in ("cpu", "both")):
        raise UsageError(
            f"--min-speedup {min_speedup:g} gates INT8 on the CPU: give --int8 with --target cpu or both "
            "(TensorRT's speed is judged on the device, by clcr-edge verify)"
        )
    if sensitivity_ticks < 1:
        raise UsageError(f"--sensitivity-ticks {sensitivity_ticks}: give at least 1, or --no-sensitivity")
    bundles.check_target(out)
    check_folder(out.parent, str(out))  # a bundle is written beside its place
    try:
        from clcr_edge.calibration.folder import calibration_set
        from clcr_edge.calibration.sets import digits_sets, own_sets
        from clcr_edge.export.gate import Gate
        from clcr_edge.export.pipeline import PAGE, export_bundle
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    gate = Gate(max_drop, min_speedup)
    source = checkpoint or shipped("digits-student")
    if source is None:
        raise UsageError("no checkpoint given, and none ships with this installation; name one: clcr-edge export CHECKPOINT")
    if root is not None:
        seen = Seen.load(source / SEEN) if (source / SEEN).is_file() else None
        calibrated, checks = digits_sets(root, seen)
    else:
        calibrated, checks = own_sets()
        if calibration is not None:
            calibrated = calibration_set(calibration)
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("export", total=None)

        def tell(what: str, done: int = 0, total: int = 0) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        ticks = sensitivity_ticks if sensitivity else 0
        bundle, report = export_bundle(source, out, int8, calibrated, checks, tell, target, gate, ticks, ladder)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        Console().print(_table(report))
        typer.echo(f"calibrated on {report['calibration'].get('source', 'nothing (fp32 only)')}")
        typer.echo(f"measured on {report['check']['name']}; {report['machine']['cpu']}")
        typer.echo(report["chosen"]["why"])
        if "tensorrt" in report:
            typer.echo(report["tensorrt"]["why"])
        for line in (*_gate_lines(report), *_ladder_lines(report)):
            typer.echo(line)
        typer.echo(f"wrote {bundle.path}; the whole report: {bundle.path / PAGE}")
    failed = [p for p, result in report["gate"]["results"].items() if not result["held"]]
    if failed:
        kept = ", ".join(bundle.precisions)
        raise ExportError(f"{', '.join(failed)} did not hold and was not written; {bundle.path} holds {kept}")


def _gate_lines(report: dict[str, Any]) -> list[str]:
    """What went back to float and why, and the three most harmful INT8 units."""
    lines = []
    for precision, result in report["gate"]["results"].items():
        lines += [f"{precision}: {r['unit']} went back to float: {r['why']}" for r in result["reverted"]]
    for precision, found in report["sensitivity"].items():
        worst = [u for u in found["units"] if u["shipped"] == "int8"][:3]
        told = ", ".join(f"{u['unit']} {u['sqnr_db']:.1f} dB" for u in worst)
        lines.append(f"most sensitive to INT8 ({precision}, {found['ticks']} ticks): {told}")
    return lines


def _ladder_lines(report: dict[str, Any]) -> list[str]:
    """The rungs of the ladder, and the changes that are none."""
    if "ladder" not in report:
        return []
    found = report["ladder"]
    head = f"{found['tick_ms']:.2f} ms a tick with a {found['camera']} camera, n={found['n_events']} events"
    lines = [f"shedding ladder ({head}):"]
    for number, rung in enumerate(found["rungs"], start=1):
        lost = f"{rung['lost_event_points']:.1f} points of event and {rung['lost_tick_points']:.1f} of tick accuracy"
        lines.append(f"  rung {number} {rung['name']}: saves {rung['saving']:.0%}, loses {lost}")
    return [*lines, *(f"  no rung: {c['change']} {c['why']}" for c in found["changes"] if not c["rung"])]


def _table(report: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table()
    for column in ("precision", "size", "parity", "event accuracy", "p50", "p90", "p99"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for precision, found in report["precisions"].items():
        mark = " *" if precision == report["chosen"]["precision"] else ""
        probs, speed, scores = found["parity"]["probs"], found["latency"], found["accuracy"]
        table.add_row(
            precision + mark,
            f"{found['bytes'] / 1e6:.2f} MB",
            f"{probs['max_abs']:.1e} ({probs['sqnr_db']:.0f} dB)",
            f"{scores['event_accuracy']:.2%} (n={scores['n_events']})",
            *(f"{speed[p]:.2f} ms" if speed else "-" for p in ("p50_ms", "p90_ms", "p99_ms")),
        )
    return table
