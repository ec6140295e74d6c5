"""`clcr-edge sync`: how much later than the sound this camera's picture is stamped, from claps or flashes with a beep."""

from __future__ import annotations

import datetime
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clcr_edge.commands.live_options import note, parsed_channel
from clcr_edge.errors import SourceError, UsageError

if TYPE_CHECKING:
    from clcr_edge.runtime.av_offset import AvOffset
    from clcr_edge.runtime.feed import Feed
    from clcr_edge.runtime.mic_channel import MicChannel
    from clcr_edge.runtime.sources import Plan

_LONGEST_S = 300.0
_TICK_S = 0.04  # a camera keeps eight frames for who comes late; at 0.04 s that is enough for 200 a second
_LOOK_EVERY = 12  # ticks; how often the events so far are matched


def sync(
    camera: Annotated[str | None, typer.Option(metavar="SRC", help="As for run [default: 0]")] = None,
    mic: Annotated[str | None, typer.Option(metavar="SRC", help="The same [default: the default microphone]")] = None,
    mic_channel: Annotated[str | None, typer.Option(metavar="N[/M]", help="Channel N (from 0) of an array of M.")] = None,
    events: Annotated[int, typer.Option(metavar="N", help="End after so many claps or flashes.")] = 8,
    seconds: Annotated[float, typer.Option(metavar="S", help="End after so long at the latest.")] = 60.0,
    no_store: Annotated[bool, typer.Option("--no-store", help="Only report it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure the offset between picture and sound, and store it for `run`.

    Clap before the camera, or let it see a flash that comes with a beep: eight times, at uneven intervals of a second or
    two. Two numbers of each frame and one of each 2 ms of sound are looked at and forgotten; nothing is recorded. Files
    are measured as well (--camera clip.mp4 --mic clip.mp4), and nothing is stored then.
    """
    from clcr_edge.runtime.av_offset import LEAST_EVENTS
    from clcr_edge.runtime.quiet import c_stderr_silenced
    from clcr_edge.runtime.sources import plan_sources
    from clcr_edge.runtime.sync_store import source_names

    if events < LEAST_EVENTS:
        raise UsageError(f"--events {events}: give at least {LEAST_EVENTS}")
    if not (math.isfinite(seconds) and 5.0 <= seconds <= _LONGEST_S):
        raise UsageError(f"--seconds {seconds:g}: give 5 to {_LONGEST_S:.0f}")
    plan = plan_sources(camera, mic)
    if plan.camera is None or plan.mic is None:
        raise UsageError(f"{plan}: an offset is between a picture and a sound; give --camera and --mic")
    channel = parsed_channel(mic_channel, plan)
    with c_stderr_silenced():
        names = source_names(plan)
        if plan.is_live:
            note(f"clap before {plan.camera} {events} times, a second or two apart and not in step; at most {seconds:g} s")
        found = _measure(plan, channel, events, seconds)
    if found is None:
        raise SourceError(
            f"{plan}: not enough was both seen and heard to tell; clap in full view and in good light, near the microphone, "
            "or use a flash that beeps"
        )
    stored = None if names is None or no_store else _store(names, found)
    if as_json:
        figures = {"offset": found.offset_s, "doubt": found.doubt_s, "spread": found.spread_s, "frame": found.frame_s}
        table = {f"{name}_ms": round(value * 1e3, 3) for name, value in figures.items()}
        about = {"events": found.events, "kind": found.kind, "camera": str(plan.camera), "microphone": str(plan.mic)}
        print(json.dumps({**table, **about, "stored": stored}))
        return
    later = "later" if found.offset_s >= 0 else "earlier"
    what = "flashes" if found.kind == "flash" else "claps"
    print(
        f"the picture is stamped {abs(found.offset_s) * 1e3:.0f} ms {later} than the sound, give or take "
        f"{found.doubt_s * 1e3:.0f} ms ({found.events} {what}, spread {found.spread_s * 1e3:.0f} ms)"
    )
    if stored is not None:
        print(f"stored in {stored}; run uses it with this camera and microphone")


def _measure(plan: Plan, channel: MicChannel | None, events: int, seconds: float) -> AvOffset | None:
    from clcr_edge.runtime.av_events import Ear, Eye, watch
    from clcr_edge.runtime.av_offset import measure

    feed = _feed(plan, channel)
    eye, ear, found = Eye(), Ear(), None
    shown = sys.stderr.isatty()
    try:
        for tick in range(1, math.ceil(seconds / _TICK_S) + 1):
            batch = feed.collect(feed.start_s + tick * _TICK_S)
            if batch is None:
                break
            watch(batch.frames, batch.chunks, eye, ear)
            if plan.is_live and tick % _LOOK_EVERY == 0:
                found = measure(eye, ear)
                if shown:
                    print(f"\rmatched {found.events if found else 0} of {events} ", end="", file=sys.stderr, flush=True)
                if found is not None and found.events >= events:
                    break
    except KeyboardInterrupt:
        pass  # what there is may be enough
    finally:
        feed.close()
        if shown and plan.is_live:
            print(file=sys.stderr)
    return measure(eye, ear)


def _feed(plan: Plan, channel: MicChannel | None) -> Feed:
    import threading

    from clcr_edge.runtime.file_feed import FileFeed
    from clcr_edge.runtime.live_feed import LiveFeed
    from clcr_edge.runtime.opening import Tuning, open_live

    assert plan.camera is not None
    assert plan.mic is not None
    if not plan.is_live:
        return FileFeed(plan.camera.path, plan.mic.path, tick_s=_TICK_S, fast=True)
    wake = threading.Event()
    camera, microphone = open_live(plan, wake, note, Tuning(mic_channel=channel))
    return LiveFeed(camera, microphone, wake, tick_s=_TICK_S)


def _store(names: tuple[str, str], found: AvOffset) -> str:
    from clcr_edge.runtime.sync_store import Synced, write_synced

    made = datetime.date.today().isoformat()
    synced = Synced(round(found.offset_s, 4), round(found.spread_s, 4), found.events, found.kind, made)
    return str(write_synced(*names, synced))
