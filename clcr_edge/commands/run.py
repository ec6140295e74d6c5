"""`clcr-edge run`: camera, microphone and speech in, one prediction per tick out."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from clcr_edge.commands.engines import EngineName, open_engine
from clcr_edge.commands.live_options import doing_without, live_tuning
from clcr_edge.errors import MissingPartError, SpeechModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clcr_edge.bundle import Bundle
    from clcr_edge.packets import Prediction, Word
    from clcr_edge.runtime.engine import Engine
    from clcr_edge.runtime.metrics import Metrics
    from clcr_edge.runtime.metrics_server import MetricsServer
    from clcr_edge.runtime.pipeline import Pipeline
    from clcr_edge.runtime.recorder import Recorder
    from clcr_edge.runtime.sources import Plan
    from clcr_edge.runtime.speech import Speech


class Sink(Protocol):
    """Where predictions go."""

    def show(self, prediction: Prediction, words: list[Word]) -> None: ...
    def close(self) -> None: ...


def run(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory [default: the one in ./out]")] = None,
    camera: Annotated[str | None, typer.Option(metavar="SRC", help="Index, device name, URL or file [default: 0]")] = None,
    mic: Annotated[str | None, typer.Option(metavar="SRC", help="The same [default: the default microphone]")] = None,
    stt_model: Annotated[Path | None, typer.Option(metavar="DIR", help="Vosk model [default: the shipped one]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
    duration: Annotated[float | None, typer.Option(metavar="S", help="End after so many seconds of media.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="[default: the one that verify chose here, or onnxruntime]")] = None,
    precision: Annotated[str | None, typer.Option(metavar="fp32|int8", help="[default: what verify or export chose]")] = None,
    no_camera: Annotated[bool, typer.Option("--no-camera", help="Run without vision.")] = False,
    no_mic: Annotated[bool, typer.Option("--no-mic", help="Run without audio and language.")] = False,
    no_stt: Annotated[bool, typer.Option("--no-stt", help="Run without language.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Replay files as fast as possible; same predictions.")] = False,
    mic_channel: Annotated[str | None, typer.Option(metavar="N[/M]", help="Channel N (from 0) of an array of M.")] = None,
    camera_latency: Annotated[
        float | None, typer.Option(metavar="S", help="Taken off the frames' stamps [default: what sync measured, or 0]")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what is seen, heard, said and predicted, for `replay`.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve /metrics for Prometheus, and /healthz. [HOST: loopback]")
    ] = None,
    no_shedding: Annotated[
        bool, typer.Option("--no-shedding", help="Live and too slow: do not leave out parts of the network.")
    ] = False,
) -> None:
    """Run a bundle on a camera, a microphone and speech, or on files; one prediction per tick.

    A file given for one of --camera and --mic serves both, as far as it has both. Nothing that is seen, heard or said is
    stored or sent, unless --record names a folder to keep it in. Ctrl-C ends.
    """
    from clcr_edge import bundle as bundles
    from clcr_edge.runtime.assets import default_bundle
    from clcr_edge.runtime.feed import Listener
    from clcr_edge.runtime.ladder import open_ladder
    from clcr_edge.runtime.opening import open_pipeline
    from clcr_edge.runtime.quiet import c_stderr_silenced
    from clcr_edge.runtime.session import Session
    from clcr_edge.runtime.sources import plan_sources

    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise UsageError(f"--duration {duration}: give a positive number of seconds")
    plan = plan_sources(camera, mic, no_camera=no_camera, no_mic=no_mic)
    if fast and plan.is_live:
        raise UsageError("--fast is for files; a live source runs at its own pace")
    address = _metrics_address(metrics)
    if record is not None:
        from clcr_edge.runtime.recorder import check_free

        check_free(record)
    with c_stderr_silenced(), ExitStack() as closing:
        loaded = bundles.read(bundle or default_bundle())
        opened = open_engine(loaded, engine, precision, _note)
        meter, server = _serve(address, loaded.path.name, opened)
        if server is not None:
            closing.callback(server.close)
        with doing_without(plan):
            tuning = live_tuning(plan, camera_latency, mic_channel, opened.config.tick.hold_frame_s)
        sink = _sink(as_json, f"{loaded.path.name}  {opened.precision}  {plan}")
        listener = Listener(on_notice=getattr(sink, "notice", _note))
        speech = _speech(plan, stt_model, no_stt, listener.on_notice)
        if record is not None:
            recorder = _recorder(record, loaded, opened, listener.on_notice, fast)
            closing.callback(_finish, recorder)
            listener = recorder.listening(listener)
        session = Session(opened, open_ladder(loaded, opened) if plan.is_live and not no_shedding else None)
        with doing_without(plan):
            pipeline = open_pipeline(session, plan, speech=speech, listener=listener, fast=fast, tuning=tuning)
        if meter is not None:
            meter.attach(pipeline)
        ticks = None if duration is None else math.ceil(duration * opened.config.tick.rate_hz - 1e-6)
        _loop(pipeline, sink, ticks, meter)


def _note(text: str) -> None:
    print(f"clcr-edge: {text}", file=sys.stderr)


def _recorder(folder: Path, bundle: Bundle, engine: Engine, notice: Callable[[str], None], fast: bool) -> Recorder:
    from clcr_edge.commands.replay import about
    from clcr_edge.runtime.recorder import Recorder

    return Recorder(folder, about(bundle, engine), notice, patient=fast)


def _finish(recorder: Recorder) -> None:
    recorder.close()
    if recorder.seconds:
        _note(recorder.line)
def _metrics_address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    from clcr_edge.runtime.metrics_server import parse_address

    return parse_address(text)


def _serve(address: tuple[str, int] | None, bundle: str, engine: Engine) -> tuple[Metrics | None, MetricsServer | None]:
    """Before cameras and microphones are opened: a port that is taken is told at once, and /healthz says `starting`."""
    if address is None:
        return None, None
    from clcr_edge import __version__
    from clcr_edge.runtime.metrics import Metrics
    from clcr_edge.runtime.metrics_server import MetricsServer, is_loopback

    about = {"version": __version__, "bundle": bundle, "engine": type(engine).__name__, "precision": engine.precision}
    metrics = Metrics(about)
    server = MetricsServer(metrics, *address)
    note = "" if is_loopback(address[0]) else ": open to the network, whoever reaches it reads label counts and source states"
    _note(f"metrics at {server.url}/metrics{note}")
    return metrics, server


def _speech(plan: Plan, stt_model: Path | None, no_stt: bool, notice: Callable[[str], None]) -> Speech | None:
    if no_stt or plan.mic is None:
        if stt_model is not None:
            raise UsageError(f"--stt-model {stt_model} needs audio to listen to; leave out --no-stt and --no-mic")
        return None
    from clcr_edge.runtime.speech import open_speech

    try:
        return open_speech(stt_model, live=plan.is_live, notice=notice)
    except (MissingPartError, SpeechModelError) as e:
        if stt_model is not None:
            raise
        _note(f"going on without language: {e}")
        return None


def _sink(as_json: bool, title: str) -> Any:
    if as_json:
        from clcr_edge.runtime.json_lines import JsonLines

        return JsonLines(sys.stdout)
    if sys.stdout.isatty():
        from rich.console import Console

        from clcr_edge.runtime.terminal import TerminalView

        return TerminalView(Console(), title)
    from clcr_edge.runtime.plain import PlainLines

    return PlainLines(sys.stdout)


def _loop(pipeline: Pipeline, sink: Sink, ticks: int | None, metrics: Metrics | None) -> None:
    """Show predictions until the media ends, the ticks are through, Ctrl-C (or SIGTERM) comes, or the reader goes away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            for prediction in pipeline:
                begun = time.perf_counter()
                sink.show(prediction, pipeline.new_words)
                pipeline.session.times.sink.add(time.perf_counter() - begun)
                if metrics is not None:
                    metrics.saw(prediction)
                if ticks is not None and pipeline.summary.ticks >= ticks:
                    break
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            # Nobody reads any more, as after `| head`; the interpreter's last flush must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        sink.close()
        pipeline.close()
        signal.signal(signal.SIGTERM, before)
        _note(pipeline.summary.line)
