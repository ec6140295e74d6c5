"""A camera that is an RTSP address, served by GStreamer's own RTSP server, through FFmpeg inside OpenCV."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
# Debian's Python has the bindings; the tests' environment has not.
_IMPORTS = """
import sys
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if not all(Gst.ElementFactory.find(n) for n in ("videotestsrc", "jpegenc", "rtpjpegpay")): sys.exit("no rtpjpegpay")
"""
_SERVER = """
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 "
                   "! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("on", flush=True)
GLib.MainLoop().run()
"""


def _has_server() -> bool:
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", _IMPORTS], capture_output=True, check=False).returncode == 0


@pytest.fixture
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [SYSTEM_PYTHON, "-c", _IMPORTS + _SERVER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            yield f"rtsp://127.0.0.1:{port}/live"
        finally:
            process.kill()


@pytest.mark.live
@pytest.mark.skipif(not _has_server(), reason="needs gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good")
def test_a_camera_at_an_rtsp_address_gives_frames(address: str, proof_bundle: Path) -> None:
    command = [sys.executable, "-m", "clcr_edge", "run", str(proof_bundle), "--camera", address, "--no-mic", "--json"]
    done = subprocess.run([*command, "--duration", "3"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == 75
    assert seen[-1]["sources"] == {"camera": "live"}
    assert len({p["frame_seq"] for p in seen}) > 37, "a new frame for more than every other tick"
