"""`clcr-edge bench`: what a bundle costs on this machine, with everything beside the figures that they depend on."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clcr_edge.commands.engines import EngineName, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from clcr_edge.export.bench import Start
    from clcr_edge.runtime.speech import Speech

_STARTS, _START_S = 3, 2.0  # how often, and how long each then runs for its memory to settle
_PARTS = 5


def bench(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory [default: the one in ./out]")] = None,
    streams: Annotated[int, typer.Option(min=1, max=1_000, help="How many streams share the engine in the deadline test.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long each paced part lasts.")] = 10.0,
    engine: Annotated[EngineName | None, typer.Option(help="[default: the one that verify chose here, or onnxruntime]")] = None,
    precision: Annotated[str | None, typer.Option(metavar="fp32|int8", help="[default: what verify or export chose]")] = None,
    camera: Annotated[str | None, typer.Option(metavar="SRC", help="Index, name, URL or file [default: generated]")] = None,
    mic: Annotated[str | None, typer.Option(metavar="SRC", help="The same [default: generated]")] = None,
    no_stt: Annotated[bool, typer.Option("--no-stt", help="Leave speech-to-text out of the live part.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every raw sample, in seconds, as JSON.")] = None,
) -> None:
    """Measure latency back to back and at the stream's pace, N streams against their deadline, capture-to-prediction age,
    CPU, memory, and start-up from a cold process.

    Without --camera and --mic, pictures and speech are generated and go through the live path; what a driver adds is then
    not in the ages.
    """
    from clcr_edge import bundle as bundles
    from clcr_edge.export import bench as measure
    from clcr_edge.export.generated import GeneratedMedia
    from clcr_edge.export.latency import WARM, paced, timed
    from clcr_edge.runtime.assets import default_bundle
    from clcr_edge.runtime.golden import FILE as GOLDEN
    from clcr_edge.runtime.golden import load_golden
    from clcr_edge.runtime.machine import machine_table
    from clcr_edge.runtime.quiet import c_stderr_silenced
    from clcr_edge.runtime.sources import plan_sources
    from clcr_edge.runtime.tensorrt_store import write_beside

    loaded = bundles.read(bundle or default_bundle())
    plan = None if camera is None and mic is None else plan_sources(camera, mic, no_camera=camera is None, no_mic=mic is None)
    load = os.getloadavg()[0]
    with c_stderr_silenced(), _progress() as step, tempfile.TemporaryDirectory(prefix="clcr-edge-") as folder:
        opened = open_engine(loaded, engine, precision, _note)
        rate_hz, media = opened.config.tick.rate_hz, GeneratedMedia()
        speech = None if no_stt or (plan is not None and plan.mic is None) else _speech(plan is None or plan.is_live)
        arguments = _arguments(loaded.path, engine, opened.precision, camera, mic, speech is None)
        step("start-up from a cold process")
        starts = [measure.cold_start(arguments, Path(folder), media, min(seconds, _START_S)) for _ in range(_STARTS)]
        step("back to back")
        golden = load_golden(loaded.path / GOLDEN)
        loop = timed({"": opened}, golden.inputs)[""]
        step("at the stream's pace")
        at_rate = paced(opened, golden.inputs, rate_hz, max(1, round(seconds * rate_hz)), warm=WARM)
        step(f"{streams} stream{'s' * (streams > 1)} against the deadline")
        many = measure.deadlines(opened, streams, seconds, media)
        step("the live path")
        alive = measure.run_live(opened, seconds, plan, speech, media)
    samples = {
        "back_to_back": loop,
        "at_pace": at_rate,
        "streams": many.latency_s,
        "live_step": alive.step_s,
        **{f"age_{name}": values for name, values in alive.age_s.items()},
        "start_up": [s.first_s for s in starts],
    }
    report = {
        "bundle": loaded.path.name,
        "engine": type(opened).__name__,
        "precision": opened.precision,
        "rate_hz": rate_hz,
        "machine": {**machine_table(), "load_1min_before": round(load, 2)},
        "warm_up_dropped": {"steps": WARM, "seconds": measure.WARM_S},
        "back_to_back": measure.worst(loop),
        "at_pace": measure.worst(at_rate),
        "streams": {
            "streams": streams,
            **measure.worst(many.latency_s),
            "deadline_ms": round(1e3 / rate_hz, 3),
            "missed": many.missed,
            "cpu_share": many.cpu_share,
        },
        "live": {
            "source": alive.source,
            "speech_to_text": speech is not None,
            "capture_to_prediction": measure.tables(alive.age_s),
            "step": measure.worst(alive.step_s),
            "late_ticks": alive.late,
            "drops": alive.drops,
            "cpu_share": alive.cpu_share,
        },
        "memory": _memory(starts, many.bytes_each, measure.state_bytes(opened)),
        "start_up": {
            "n": len(starts),
            "median_s": round(median(s.first_s for s in starts), 3),
            "all_s": [round(s.first_s, 3) for s in starts],
        },
    }
    if out is not None:
        write_beside(out, json.dumps({"report": report, "unit": "seconds", "samples": samples}).encode("utf-8"))
    typer.echo(json.dumps(report) if as_json else page(report))


def _note(text: str) -> None:
    print(f"clcr-edge: {text}", file=sys.stderr)


def _memory(starts: list[Start], bytes_each: float | None, state: int) -> dict[str, int | None]:
    runs = [s.process_bytes for s in starts if s.process_bytes is not None]
    return {
        "run_process_bytes": max(runs) if runs else None,
        "stream_bytes": None if bytes_each is None else round(bytes_each),
        "stream_state_bytes": state,
    }


def _speech(live: bool) -> Speech | None:
    from clcr_edge.errors import MissingPartError, SpeechModelError
    from clcr_edge.runtime.speech import open_speech

    try:
        return open_speech(live=live)
    except (MissingPartError, SpeechModelError) as e:
        _note(f"going on without language: {e}")
        return None


def _arguments(
    path: Path, engine: EngineName | None, precision: str, camera: str | None, mic: str | None, no_stt: bool
) -> list[str]:
    """The options of `clcr-edge run` that start what is measured here."""
    named = {"--engine": None if engine is None else engine.value, "--precision": precision, "--camera": camera, "--mic": mic}
    given = [word for name, value in named.items() if value is not None for word in (name, value)]
    if camera is not None and mic is None:
        given.append("--no-mic")
    if mic is not None and camera is None:
        given.append("--no-camera")
    return [str(path), *given, *(["--no-stt"] if no_stt else [])]


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, nothing in a pipe. Painted between measurements only: a painting thread would be measured too."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=_PARTS)
        begun = [0]

        def step(text: str) -> None:
            bar.update(task, description=text, completed=begun[0], refresh=True)
            begun[0] += 1

        yield step


def page(report: dict[str, Any]) -> str:
    """The report as plain text."""
    live, many, memory, start = report["live"], report["streams"], report["memory"], report["start_up"]

    def row(name: str, t: dict[str, Any]) -> str:
        return f"{name:30} {t['p50_ms']:8.2f} {t['p90_ms']:8.2f} {t['p99_ms']:8.2f} {t['max_ms']:8.2f} {t['n']:8}"

    def megabytes(count: int | None) -> str:
        return "not told by this system" if count is None else f"{count / 1e6:.1f} MB"

    ages = live["capture_to_prediction"]
    warm = report["warm_up_dropped"]
    stt = "with" if live["speech_to_text"] else "without"
    lines = [
        f"clcr-edge bench: {report['bundle']}, {report['engine']}, {report['precision']}, {report['rate_hz']:g} Hz",
        *(f"{name:17} {value}" for name, value in report["machine"].items()),
        "",
        f"{'milliseconds':30} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8} {'n':>8}",
        row("step, back to back", report["back_to_back"]),
        row("step, at the stream's pace", report["at_pace"]),
        row(f"tick's end to prediction, x{many['streams']}", many),
        row(f"live step, {stt} speech-to-text", live["step"]),
        *(row(f"capture to prediction, {name}", ages[name]) for name in ages),
        f"The first {warm['steps']} steps, and {warm['seconds']:g} s of what is paced by media, are not counted.",
        "",
        f"deadline of {many['deadline_ms']:g} ms with {many['streams']} streams: missed {many['missed']} of {many['n']}, "
        f"CPU {many['cpu_share']:.0%} of a core",
        f"live on {live['source']}: {live['late_ticks']} late ticks, CPU {live['cpu_share']:.0%} of a core",
        f"memory: clcr-edge run {megabytes(memory['run_process_bytes'])}, each further stream "
        f"{megabytes(memory['stream_bytes'])}, of which state {megabytes(memory['stream_state_bytes'])}",
        f"start-up to the first prediction, cold process: {', '.join(f'{s:.2f}' for s in start['all_s'])} s",
    ]
    return "\n".join(lines)
