"""Addresses of cameras hold passwords; what a run prints goes into logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from live_rig import CameraServer, camera_server
from test_runtime_faults import frames_for, wait_for

from clcr_edge.runtime.shown_address import shown_address
from clcr_edge.runtime.sources import plan_sources


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://me:secret@10.0.0.2:554/live?token=x", "rtsp://10.0.0.2:554/live"),
        ("http://127.0.0.1:80/video.mjpg", "http://127.0.0.1:80/video.mjpg"),
        ("gst:rtspsrc location=rtsp://me:secret@cam/1 ! decodebin", "gst:rtspsrc location=rtsp://cam/1 ! decodebin"),
        ("gst:rtspsrc location=rtsp://cam/1 user-pw=secret ! a", "gst:rtspsrc location=rtsp://cam/1 user-pw=... ! a"),
        ("souphttpsrc proxy-pw='a secret' ! b", "souphttpsrc proxy-pw=... ! b"),
        ("csi://0?width=640", "csi://0?width=640"),
        ("HD Webcam? (046d:0825)", "HD Webcam? (046d:0825)"),
        ("0", "0"),
    ],
)
def test_a_source_is_shown_without_its_secrets(source: str, shown: str) -> None:
    assert shown_address(source) == shown
    assert str(plan_sources(source, None, no_mic=True).camera) == shown


@pytest.mark.parametrize("option", ["--camera", "--mic"])
def test_an_error_names_no_password(option: str, proof_bundle: Path) -> None:
    other = "--no-mic" if option == "--camera" else "--no-camera"
    address = "http://me:secret@127.0.0.1:1/live?token=hidden"
    command = [sys.executable, "-m", "clcr_edge", "run", str(proof_bundle), option, address, other, "--no-stt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "http://127.0.0.1:1/live" in line
    assert "secret" not in line
    assert "hidden" not in line


@pytest.mark.live
def test_a_notice_names_no_password() -> None:
    from clcr_edge.runtime.camera import Camera

    def pulled(camera: CameraServer) -> list[str]:
        notices: list[str] = []
        source = Camera(camera.url.replace("//", "//me:secret@"), notice=notices.append)
        assert frames_for(source, 0.3)
        camera.stop()
        assert wait_for(lambda: bool(notices))
        source.close()
        return notices

    with camera_server() as camera:
        assert pulled(camera)[0].startswith(f"camera {camera.url} is gone")
