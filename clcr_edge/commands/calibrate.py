"""`clcr-edge calibrate`: records what the device itself sees and hears, as step inputs, for `export --int8 --calibration`."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clcr_edge.commands.run import _note, _speech
from clcr_edge.errors import DataError, UsageError

if TYPE_CHECKING:
    from clcr_edge.calibration.recorder import RecordingEngine
    from clcr_edge.config import StudentConfig
    from clcr_edge.runtime.pipeline import Pipeline
    from clcr_edge.runtime.sources import Plan

_LONGEST_S = 600.0


def calibrate(
    model: Annotated[
        Path | None, typer.Argument(help="Bundle or checkpoint to record for [default: the student that ships, as for export]")
    ] = None,
    record: Annotated[float, typer.Option(metavar="S", help="Seconds to record, 10 to 600.")] = 60.0,
    camera: Annotated[str | None, typer.Option(metavar="SRC", help="Index, device name, URL or file [default: 0]")] = None,
    mic: Annotated[str | None, typer.Option(metavar="SRC", help="The same [default: the default microphone]")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The calibration folder to write.")] = Path("out/calibration"),
    stt_model: Annotated[Path | None, typer.Option(metavar="DIR", help="Vosk model [default: the shipped one]")] = None,
    no_stt: Annotated[bool, typer.Option("--no-stt", help="Record without words.")] = False,
) -> None:
    """Record this device's camera, microphone and words for calibration.

    Kept are small grey pictures, filter-bank energies and hashes of words; no sound that can be played, no text. Nothing is
    sent. Use it with: clcr-edge export --int8 --calibration DIR. Ctrl-C keeps nothing.
    """
    from clcr_edge.calibration.recorded import LEAST_TICKS, CalibrationWriter, bytes_per_tick
    from clcr_edge.calibration.recorder import RecordingEngine
    from clcr_edge.runtime.feed import Listener
    from clcr_edge.runtime.media_file import MediaFile
    from clcr_edge.runtime.opening import open_pipeline
    from clcr_edge.runtime.quiet import c_stderr_silenced
    from clcr_edge.runtime.session import Session
    from clcr_edge.runtime.sources import plan_sources

    if not (math.isfinite(record) and 10.0 <= record <= _LONGEST_S):
        raise UsageError(f"--record {record:g}: give 10 to {_LONGEST_S:.0f} seconds")
    plan = plan_sources(camera, None if mic == "default" else mic)
    for source in (plan.camera, plan.mic):
        if source is not None and source.path is not None:
            MediaFile(source.path, video=False, audio=False).close()  # a bad file is named, before what it leaves missing is
    if plan.camera is None or plan.mic is None:
        raise UsageError(f"{plan}: calibration needs pictures and sound; give --camera and --mic")
    config = _config(model)
    ticks = math.ceil(record * config.tick.rate_hz - 1e-6)
    with c_stderr_silenced(), CalibrationWriter(out, config) as writer:
        engine = RecordingEngine(config, writer)
        speech = _speech(plan, stt_model, no_stt, _note)
        listener = Listener(on_notice=_note)
        pipeline = open_pipeline(Session(engine), plan, speech=speech, listener=listener, fast=not plan.is_live)
        _announce(config, record, ticks * bytes_per_tick(config) / 1e6, plan, out)
        _record(pipeline, engine, ticks, config.tick.rate_hz)
        media = engine.media
        if media.ticks < LEAST_TICKS:
            raise DataError(
                f"only {media.ticks * config.tick.seconds:.1f} s came from {plan}, "
                f"at least {LEAST_TICKS * config.tick.seconds:.0f} s are needed; nothing was kept"
            )
        media.check()
        frames, sounds = media.counts.values()
        about = {"source": str(plan), "ticks_with_picture": frames, "ticks_with_sound": sounds, "words": media.words}
        written = writer.finish(about)
    if media.ticks < ticks:
        _note(f"{plan} ended after {media.ticks * config.tick.seconds:.1f} s; {record:g} s were asked for")
    typer.echo(
        f"wrote {out}: {media.ticks} ticks, {frames} with a picture, {sounds} with sound, {media.words} words, "
        f"{written / 1e6:.1f} MB; use it with: clcr-edge export --int8 --calibration {out}"
    )


def _announce(config: StudentConfig, record_s: float, limit_mb: float, plan: Plan, out: Path) -> None:
    """What will be kept: said once all is open, and before the first tick is."""
    size = config.tick.image_size
    _note(f"recording {record_s:g} s from {plan} into {out}, at most {limit_mb:.1f} MB")
    _note(
        f"kept: {size} x {size} grey pictures (faces can be recognised), filter-bank energies (speech could be rebuilt in "
        "part), hashes of words; not kept: sound, colour, text. Nothing is sent; keep the folder private"
    )


def _config(path: Path | None) -> StudentConfig:
    from clcr_edge import bundle as bundles
    from clcr_edge import toml_io
    from clcr_edge.config import StudentConfig, from_table
    from clcr_edge.errors import ConfigError
    from clcr_edge.runtime.assets import default_bundle, shipped

    root = path or shipped("digits-student") or default_bundle()
    student = root / "student.toml"
    if not student.is_file():
        return bundles.read(root).config
    try:
        return from_table(StudentConfig, toml_io.loads(student.read_text("utf-8"))["student"])
    except (toml_io.TOMLDecodeError, UnicodeDecodeError, KeyError, ConfigError) as e:
        raise DataError(f"{student}: not a student's configuration ({e}); name another checkpoint or bundle") from None


def _record(pipeline: Pipeline, engine: RecordingEngine, ticks: int, rate_hz: int) -> None:
    shown = sys.stderr.isatty()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written is left
    try:
        for prediction in pipeline:
            if shown and engine.media.ticks % rate_hz == 0:
                left = (ticks - engine.media.ticks) // rate_hz
                print(f"\rrecording, {left:3d} s left, {engine.media.words} words ", end="", file=sys.stderr, flush=True)
            del prediction
            if engine.media.ticks >= ticks:
                break
    finally:
        if shown:
            print(file=sys.stderr)
        pipeline.close()
        signal.signal(signal.SIGTERM, before)
