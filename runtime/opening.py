"""From a plan to a running pipeline: opens files, or a camera and a microphone. Device code is imported only when used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clcr_edge.errors import UsageError
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.live_feed import AudioSource, FrameSource
from clcr_edge.runtime.pipeline import Pipeline, live, replay
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import Plan, Source
from clcr_edge.runtime.speech import Speech
from clcr_edge.runtime.stages import LatencyHistogram

if TYPE_CHECKING:
    from clcr_edge.runtime.mic_channel import MicChannel

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """What is known of live sources before they open. camera_latency_s: from the light to a frame's arrival, taken off its
    stamp. mic_offset_s: added to the stamps of sound. mic_channel: see `MicChannel`."""

    camera_latency_s: float = 0.0
    mic_offset_s: float = 0.0
    mic_channel: MicChannel | None = None


_UNTUNED = Tuning()


def open_pipeline(
    session: Session,
    plan: Plan,
    *,
    speech: Speech | None = None,
    listener: Listener | None = None,
    fast: bool = False,
    tuning: Tuning = _UNTUNED,
) -> Pipeline:
    """Open the plan's sources. fast: replay files without waiting for the clock. tuning: for live sources.

    Raises `SourceError` or `MissingPartError` if one cannot be opened.
    """
    if not plan.is_live:
        files = [None if source is None else source.path for source in (plan.camera, plan.mic)]
        return replay(session, camera=files[0], mic=files[1], speech=speech, fast=fast, listener=listener)
    wake, decode = threading.Event(), session.times.decode
    listener = listener or Listener()
    camera, microphone = open_live(plan, wake, listener.on_notice, tuning, decode)
    return live(session, camera=camera, microphone=microphone, wake=wake, speech=speech, listener=listener)


def open_live(
    plan: Plan,
    wake: threading.Event,
    notice: Notice,
    tuning: Tuning = _UNTUNED,
    decode: Mapping[str, LatencyHistogram] | None = None,
) -> tuple[FrameSource | None, AudioSource | None]:
    """Both sources of a live plan, or neither: if the second cannot be opened, the first is closed."""
    decode = decode or {}
    camera = microphone = None
    if plan.camera is not None:
        camera = open_camera(
            plan.camera, wake=wake, notice=notice, latency_s=tuning.camera_latency_s, decoding=decode.get("camera")
        )
    try:
        if plan.mic is not None:
            microphone = open_microphone(
                plan.mic, wake=wake, notice=notice, offset_s=tuning.mic_offset_s, channel=tuning.mic_channel,
                decoding=decode.get("microphone"),
            )
    except BaseException:
        if camera is not None:
            camera.close()
        raise
    return camera, microphone


def open_camera(
    source: Source,
    *,
    wake: threading.Event,
    notice: Notice,
    latency_s: float = 0.0,
    decoding: LatencyHistogram | None = None,
) -> FrameSource:
    """A live camera. latency_s: taken off every frame's stamp."""
    from clcr_edge.runtime.camera import Camera

    camera_value(source)  # one that is not there by its name is told with those that are
    assert source.value is not None
    return Camera(source.value, wake=wake, notice=notice, latency_s=latency_s, decoding=decoding)


def camera_value(source: Source) -> int | str:
    """Index, path or address of a camera, as they are now. Raises `SourceError` if there is none of the name that is given."""
    from clcr_edge.runtime.video_devices import find_video_device

    value = source.value
    assert value is not None
    if isinstance(value, str) and source.kind == "device" and not value.startswith("/dev/"):
        return find_video_device(value).index
    return value


def open_microphone(
    source: Source,
    *,
    wake: threading.Event,
    notice: Notice,
    offset_s: float = 0.0,
    channel: MicChannel | None = None,
    decoding: LatencyHistogram | None = None,
) -> AudioSource:
    """A live microphone, or the audio of a stream. offset_s: added to every stamp. channel: of an array."""
    if source.kind == "url":
        from clcr_edge.runtime.network_audio import NetworkAudio

        if channel is not None:
            raise UsageError(f"--mic-channel is for microphones; {source} is a stream, whose channels are mixed to one")
        return NetworkAudio(str(source.value), wake=wake, notice=notice, offset_s=offset_s, decoding=decoding)
    from clcr_edge.runtime.microphone import Microphone

    return Microphone(source.value, wake=wake, notice=notice, offset_s=offset_s, channel=channel, decoding=decoding)
