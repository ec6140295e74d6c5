"""From a plan to a running pipeline: opens files, or a camera and a microphone. Device code is imported only when used."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clcr_edge.errors import SourceError
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.live_feed import AudioSource, FrameSource
from clcr_edge.runtime.pipeline import Pipeline, live, replay
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import Plan, Source
from clcr_edge.runtime.speech import Speech
from clcr_edge.runtime.stages import LatencyHistogram

Notice = Callable[[str], None]


def open_pipeline(
    session: Session,
    plan: Plan,
    *,
    speech: Speech | None = None,
    listener: Listener | None = None,
    fast: bool = False,
) -> Pipeline:
    """Open the plan's sources. fast: replay files without waiting for the clock.

    Raises `SourceError` or `MissingPartError` if one cannot be opened.
    """
    if not plan.is_live:
        files = [None if source is None else source.path for source in (plan.camera, plan.mic)]
        return replay(session, camera=files[0], mic=files[1], speech=speech, fast=fast, listener=listener)
    wake, decode = threading.Event(), session.times.decode
    listener = listener or Listener()
    camera = microphone = None
    if plan.camera is not None:
        camera = open_camera(plan.camera, wake=wake, notice=listener.on_notice, decoding=decode["camera"])
    try:
        if plan.mic is not None:
            microphone = open_microphone(plan.mic, wake=wake, notice=listener.on_notice, decoding=decode["microphone"])
    except BaseException:
        if camera is not None:
            camera.close()
        raise
    return live(session, camera=camera, microphone=microphone, wake=wake, speech=speech, listener=listener)


def open_camera(
    source: Source, *, wake: threading.Event, notice: Notice, decoding: LatencyHistogram | None = None
) -> FrameSource:
    """A live camera."""
    from clcr_edge.runtime.camera import Camera
    from clcr_edge.runtime.video_devices import list_video_devices

    value = source.value
    if isinstance(value, str) and source.kind == "device" and not value.startswith("/dev/"):
        devices = list_video_devices()
        match = [d for d in devices if d.name == value] or [d for d in devices if value.casefold() in d.name.casefold()]
        if not match:
            found = ", ".join(f"{d.index} {d.name!r}" for d in devices) or "none"
            raise SourceError(f"camera {value!r}: no such device or file; found {found}; see clcr-edge devices")
        value = match[0].index
    assert value is not None
    return Camera(value, wake=wake, notice=notice, decoding=decoding)


def open_microphone(
    source: Source, *, wake: threading.Event, notice: Notice, decoding: LatencyHistogram | None = None
) -> AudioSource:
    """A live microphone, or the audio of a stream."""
    if source.kind == "url":
        from clcr_edge.runtime.network_audio import NetworkAudio

        return NetworkAudio(str(source.value), wake=wake, notice=notice, decoding=decoding)
    from clcr_edge.runtime.microphone import Microphone

    return Microphone(source.value, wake=wake, notice=notice, decoding=decoding)
