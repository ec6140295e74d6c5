"""`clcr-edge devices`: which cameras and microphones this machine has."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer


def devices(as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False) -> None:
    """List cameras and microphones, as --camera and --mic take them."""
    from clcr_edge.errors import ClcrEdgeError
    from clcr_edge.runtime.portaudio import input_devices
    from clcr_edge.runtime.quiet import c_stderr_silenced
    from clcr_edge.runtime.video_devices import list_video_devices

    problem = None
    with c_stderr_silenced():
        cameras = list_video_devices()
        try:
            microphones = input_devices(with_rates=True)
        except ClcrEdgeError as e:
            microphones, problem = [], str(e)
    if as_json:
        table = {
            "cameras": [asdict(c) for c in cameras],
            "microphones": [asdict(m) for m in microphones],
            "microphone_problem": problem,
        }
        print(json.dumps(table, indent=2))
        return
    print("cameras")
    for camera in cameras:
        print(f"  {camera.index:3}  {camera.name}  ({camera.path})")
    if not cameras:
        if sys.platform == "linux":
            print("       none found (no /dev/video* that captures); a URL or a file also serves: --camera URL|FILE")
        else:
            print("       not listed on this system; try --camera 0")
    print("microphones")
    for mic in microphones:
        rates = ", ".join(f"{r} Hz" for r in mic.rates_hz) or f"{mic.default_rate_hz} Hz"
        print(f"  {mic.index:3}  {mic.name}  ({rates}){'  default' if mic.is_default else ''}")
    if problem is not None:
        print(f"       {problem.removeprefix('microphone: ')}")
    elif not microphones:
        print("       none found (PortAudio lists no input); plug one in, or start the sound server; a file also serves")
