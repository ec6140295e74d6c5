"""What the commands that open a camera and a microphone share: their options' checks, and what to say when one fails."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clcr_edge.errors import MissingPartError, SourceError, UsageError

if TYPE_CHECKING:
    from clcr_edge.runtime.mic_channel import MicChannel
    from clcr_edge.runtime.opening import Tuning
    from clcr_edge.runtime.sources import Plan


def note(text: str) -> None:
    """One line on stderr."""
    print(f"clcr-edge: {text}", file=sys.stderr)


@contextmanager
def doing_without(plan: Plan) -> Iterator[None]:
    """Add to the error of a source the option that leaves it out, if that would leave another to run on."""
    try:
        yield
    except (SourceError, MissingPartError) as e:
        option = {"camera": "--no-camera", "microphone": "--no-mic"}.get(e.part or "")
        if option is not None and plan.camera is not None and plan.mic is not None:
            e.args = (f"{e}, or give {option}",)
        raise


def parsed_channel(text: str | None, plan: Plan) -> MicChannel | None:
    """`--mic-channel`. Raises `UsageError` where it cannot apply."""
    if text is None:
        return None
    from clcr_edge.runtime.mic_channel import parse_channel

    if plan.mic is None or plan.mic.kind != "device":
        raise UsageError(f"--mic-channel {text} is for microphones; the channels of files and streams are mixed to one")
    return parse_channel(text)


def live_tuning(plan: Plan, camera_latency_s: float | None, mic_channel: str | None, hold_s: float) -> Tuning:
    """What is to be taken off the stamps: as the option says, or as `clcr-edge sync` has measured it for these two.

    hold_s: how long a picture counts. Raises `UsageError`; and `SourceError` if a named device is not there.
    """
    from clcr_edge.runtime.opening import Tuning
    from clcr_edge.runtime.sync_store import read_synced, source_names

    channel = parsed_channel(mic_channel, plan)
    if camera_latency_s is not None:
        if plan.camera is None or plan.camera.kind == "file":
            raise UsageError(f"--camera-latency {camera_latency_s:g} is for a live camera; a file has its own times")
        if not (math.isfinite(camera_latency_s) and 0.0 <= camera_latency_s < hold_s):
            raise UsageError(f"--camera-latency {camera_latency_s:g}: give 0 to {hold_s:g} s; an older picture counts as none")
        return Tuning(camera_latency_s, 0.0, channel)
    names = source_names(plan)
    synced = None if names is None else read_synced(*names)
    if synced is None or not abs(synced.offset_s) < hold_s:
        return Tuning(mic_channel=channel)
    # No stamp can be before its event: whichever of the two is stamped earlier is the truer.
    late = "pictures" if synced.offset_s >= 0 else "sound"
    note(
        f"stamps of {late} are moved {abs(synced.offset_s) * 1e3:.0f} ms back, as clcr-edge sync measured on {synced.made}; "
        "--camera-latency 0 leaves them as they are"
    )
    return Tuning(max(synced.offset_s, 0.0), min(synced.offset_s, 0.0), channel)
