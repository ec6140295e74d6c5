"""`clcr-edge replay`: runs a recording again, and shows where another bundle or precision says something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clcr_edge.commands.engines import EngineName, onnxruntime_line, open_engine
from clcr_edge.errors import RecordingError

if TYPE_CHECKING:
    from clcr_edge.bundle import Bundle
    from clcr_edge.runtime.engine import Engine
    from clcr_edge.runtime.recorder import About
    from clcr_edge.runtime.recording import Recording
    from clcr_edge.runtime.replaying import Difference


def replay(
    recording: Annotated[Path, typer.Argument(metavar="DIR", help="What `run --record DIR` wrote.")],
    bundle: Annotated[Path | None, typer.Option(metavar="OTHER", help="Another bundle [default: the recording's own]")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="[default: the recording's]")] = None,
    precision: Annotated[str | None, typer.Option(metavar="fp32|int8", help="[default: the recording's, if there]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line: each tick, then a summary.")] = False,
) -> None:
    """Run a recording again and compare each prediction with the recorded one.

    The same bundle must say the same to the last bit: exit code 1 if it does not. With --bundle or --precision: what another
    one would have said (exit code 0).
    """
    from clcr_edge.runtime.json_lines import as_json as prediction_json
    from clcr_edge.runtime.ladder import open_ladder
    from clcr_edge.runtime.recording import Recording
    from clcr_edge.runtime.replaying import Difference, replay_recording
    from clcr_edge.runtime.session import Session

    opened = Recording(recording)
    chosen = _bundle(opened, bundle)
    then = opened.manifest["engine"]
    if precision is None and then["precision"] in chosen.manifest["graphs"]:
        precision = then["precision"]
    if engine is None and then["name"] in {e.value for e in EngineName}:
        engine = EngineName(then["name"])
    running = open_engine(chosen, engine, precision, _note)
    now = about(chosen, running)
    difference = Difference()
    for tick in replay_recording(opened, Session(running, open_ladder(chosen, running, when_needed=True))):
        difference.add(tick)
        if as_json:
            line = prediction_json(tick.prediction) | {
                "words": [w.text for w in tick.words],
                "recorded_label": tick.recorded.get("label"),
                "identical": tick.identical,
                "max_difference": tick.max_difference if tick.max_difference != float("inf") else None,
                "frames_lost": tick.lost,
            }
            typer.echo(json.dumps(line, separators=(",", ":")))
    same = _is_same(opened, now, difference)
    if as_json:
        ended = {"closed": opened.end.closed, "ended": opened.end.why, "same_bundle": same}
        engines = {"recorded": then, "replayed": now.engine}
        typer.echo(json.dumps({"summary": difference.to_json() | ended | engines}, separators=(",", ":")))
    else:
        typer.echo("\n".join(page(opened, now, difference)))
    if same and difference.identical < difference.ticks:
        raise typer.Exit(1)


def about(bundle: Bundle, engine: Engine) -> About:
    """What a recording keeps of the bundle and the engine, and a replay compares with."""
    import clcr_edge
    from clcr_edge.bundle import MANIFEST
    from clcr_edge.runtime.ladder import ladder_sha256
    from clcr_edge.runtime.machine import cpu_name
    from clcr_edge.runtime.native_engine import NativeEngine
    from clcr_edge.runtime.onnx_engine import OnnxEngine
    from clcr_edge.runtime.recorder import About

    if isinstance(engine, OnnxEngine):
        name, machine = EngineName.onnxruntime, onnxruntime_line()
    elif isinstance(engine, NativeEngine):
        name, machine = EngineName.native, f"{cpu_name()}, {engine.compiler}"
    else:
        name, machine = EngineName.tensorrt, f"{cpu_name()}, TensorRT"
    tick = engine.config.tick
    return About(
        bundle={
            "name": bundle.path.name,
            "path": str(bundle.path.resolve()),
            "sha256": hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest(),
            "graph_sha256": _graph_sha256(bundle, engine.precision) or "",
            "ladder_sha256": ladder_sha256(bundle),
        },
        engine={
            "name": name.value,
            "precision": engine.precision,
            "machine": machine,
        },
        tick={"rate_hz": tick.rate_hz, "sample_rate_hz": tick.sample_rate_hz},
        version=clcr_edge.__version__,
    )


def _graph_sha256(bundle: Bundle, precision: str) -> str | None:
    name = bundle.manifest["graphs"].get(precision)
    return None if name is None else str(bundle.manifest["files"][name]["sha256"])


def _bundle(recording: Recording, other: Path | None) -> Bundle:
    """The bundle to run: the one named, else the recording's own, if it is still where it was and what it was."""
    from clcr_edge import bundle as bundles

    if other is not None:
        return bundles.read(other)
    kept = recording.manifest["bundle"]
    path = Path(kept["path"])
    if not (path / bundles.MANIFEST).is_file():
        raise RecordingError(f"{recording.folder}: made with the bundle {path}, which is not here; name a bundle with --bundle")
    found = bundles.read(path)
    if _graph_sha256(found, recording.manifest["engine"]["precision"]) != kept["graph_sha256"]:
        raise RecordingError(
            f"{recording.folder}: the bundle {path} was exported anew since; to see the difference: "
            f"clcr-edge replay {recording.folder} --bundle {path}"
        )
    return found


def _is_same(recording: Recording, now: About, found: Difference) -> bool:
    """The same graph in the same engine, on the same rungs if any was left: predictions have to be equal."""
    then = recording.manifest
    graph = then["bundle"]["graph_sha256"] == now.bundle["graph_sha256"]
    engine = then["engine"]["name"] == now.engine["name"]
    return bool(graph and engine and not (found.shed and _other_ladder(recording, now)))


def _other_ladder(recording: Recording, now: About) -> bool:
    """Whether a rung of the recording's number is something else here. The export measures the ladder anew each time."""
    then = recording.manifest["bundle"]
    if "ladder_sha256" not in then:  # recorded before that was kept: only the very same bundle is sure to have the same one
        return bool(then["sha256"] != now.bundle["sha256"])
    return bool(then["ladder_sha256"] != now.bundle["ladder_sha256"])


def page(recording: Recording, now: About, found: Difference) -> list[str]:
    """The comparison for a person."""
    then = recording.manifest
    seconds = (found.ticks + found.passed_over) / recording.rate_hz
    ticks = f"{found.ticks} ticks" + (f" and {found.passed_over} passed over" if found.passed_over else "")
    lines = [
        f"{recording.folder}: {ticks}, {seconds:.1f} s, recorded {then.get('created', '')}; {recording.end.why}",
        f"  recorded  {then['bundle']['name']}  {then['engine']['precision']}  {then['engine']['machine']}",
        f"  replayed  {now.bundle['name']}  {now.engine['precision']}  {now.engine['machine']}",
        "",
        f"identical, to the last bit  {found.identical} of {found.ticks}",
        f"labels that differ          {found.labels_differ}",
    ]
    if found.max_difference_at_s is not None:
        at = f"of a probability, at {found.max_difference_at_s:.2f} s"
        lines.append(f"largest difference          {found.max_difference:.3g} {at}")
        lines.append(f"mean of the ticks' largest  {found.mean_difference:.3g}")
    if found.runs:
        lines += ["", "      from        to  recorded -> replayed"]
        lines += [f"{a:10.2f}{b:10.2f}  {then_said} -> {now_said}" for a, b, then_said, now_said in found.runs]
        if found.runs_total > len(found.runs):
            lines.append(f"  ... and {found.runs_total - len(found.runs)} more")
    if found.frames_lost:
        lines += ["", f"incomplete: {found.frames_lost} frames are missing, the disk was too slow; so predictions may differ"]
    if found.shed and _other_ladder(recording, now):
        lines += ["", f"{found.shed} ticks were on a rung of the ladder, and this bundle has another ladder: they may differ"]
    if _is_same(recording, now, found) and found.identical < found.ticks and not found.frames_lost:
        lines += ["", _why(then["engine"]["machine"], now.engine["machine"])]
    return lines


def _why(then: str, now: str) -> str:
    if then != now:
        return "the bundle is the same, the machine is not: another processor, engine or compiler may differ in the last bits"
    return "the same bundle on the same machine: this should not be; please report it, with the recording if you can"


def _note(text: str) -> None:
    typer.echo(f"clcr-edge: {text}", err=True)


