"""Live sources on real parts: PortAudio on a PulseAudio null sink, OpenCV on an HTTP camera, and both being unplugged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import find_in, noise
from live_rig import (
    CameraServer,
    RadioServer,
    SoundServer,
    need_module,
    need_program,
    read_counter,
    write_wav,
)

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, FloatArray, VideoFrame
from clcr_edge.runtime.opening import open_camera
from clcr_edge.runtime.sources import Source
from clcr_edge.runtime.video_devices import VideoDevice, list_video_devices

pytestmark = pytest.mark.live


def collect_audio(source: Any, seconds: float, wake: threading.Event) -> tuple[list[AudioChunk], list[float]]:
    """Chunks, and how late each take was against the end of its newest sample."""
    chunks: list[AudioChunk] = []
    lags: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        wake.wait(0.2)
        wake.clear()
        new = source.take()
        if new:
            lags.append(time.monotonic() - new[-1].end_s)
            chunks += new
    return chunks, lags


def samples(chunks: list[AudioChunk]) -> FloatArray:
    return np.concatenate([c.samples for c in chunks])


# -- microphone --------------------------------------------------------------------------------------------------------

# In processes of their own: PortAudio looks for its server once, when it is first imported.
MICROPHONE = """
import json, sys, threading, time
import numpy as np
sys.path.insert(0, sys.argv[1])
from clcr_edge.runtime.microphone import Microphone
from test_runtime_live import collect_audio
wake = threading.Event()
notices = []
microphone = Microphone(wake=wake, notice=notices.append, **json.loads(sys.argv[3]))
print("open", flush=True)
chunks, lags = collect_audio(microphone, float(sys.argv[4]), wake)
microphone.close()
np.savez(sys.argv[2], samples=np.concatenate([c.samples for c in chunks]), starts=[c.t_s for c in chunks],
         ends=[c.end_s for c in chunks], lags=lags, notices=notices)
"""


def record(
    server: SoundServer, tmp_path: Path, play: FloatArray, seconds: float, rate_hz: int = 16_000, **options: object
) -> Any:
    wav = write_wav(tmp_path / "play.wav", play, rate_hz)
    out = tmp_path / "out.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", MICROPHONE, str(Path(__file__).parent), str(out), json.dumps(options), str(seconds)],
        env=server.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    player = server.play(wav)
    process.communicate(timeout=60)
    player.wait()
    assert process.returncode == 0
    return np.load(out)


def heard_whole(server: SoundServer, tmp_path: Path, played: FloatArray) -> Any:
    """A recording of 2.8 s without a hole: a sound server on a busy machine may lose a block, but not each time."""
    for _ in range(3):
        got = record(server, tmp_path, played, 2.8)
        if np.abs(got["starts"][1:] - got["ends"][:-1]).max() < 0.005 and find_in(got["samples"], played)[1] > 0.9:
            break
    return got


def joined(got: dict[str, Any], within_s: float) -> None:
    """In its first second the clock may still find its place, however many blocks that is; then chunks join exactly."""
    first = int(np.searchsorted(got["starts"], got["starts"][0] + 1.0)) + 1
    assert got["ends"][-1] - got["starts"][first] > 1.0
    np.testing.assert_allclose(got["starts"][first:], got["ends"][first - 1 : -1], atol=within_s)


def test_what_is_played_is_what_is_heard_sample_for_sample(sound: SoundServer, tmp_path: Path) -> None:
    played = noise(2.0)
    got = heard_whole(sound, tmp_path, played)
    at, correlation = find_in(got["samples"], played)
    assert correlation > 0.9999
    np.testing.assert_allclose(got["samples"][at : at + len(played)], played, atol=2 / 32_768)
    joined(got, 1e-6)
    # A block is there as soon as it is full; a busy machine makes some wait, but not all.
    assert np.quantile(got["lags"], 0.2) < 0.03
    assert len(got["notices"]) == 0


RESAMPLED = """
import sys
import clcr_edge.runtime.microphone as microphone
microphone.takes_rate = lambda sd, device, channels, rate_hz: rate_hz == 44_100  # a sound card without 16 kHz
"""


def test_a_sound_card_of_44_khz_is_resampled_to_16(sound: SoundServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "MICROPHONE", RESAMPLED + MICROPHONE)
    played = noise(2.0)
    got = heard_whole(sound, tmp_path, played)
    _, correlation = find_in(got["samples"], played[4_000:28_000])
    assert correlation > 0.98
    joined(got, 1e-3)
    spanned_s = got["ends"][-1] - got["starts"][0]
    assert spanned_s > 2.0
    assert len(got["samples"]) == pytest.approx(spanned_s * 16_000, rel=0.02)


# -- camera ------------------------------------------------------------------------------------------------------------


def test_frames_are_right_in_order_and_on_time(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    wake = threading.Event()
    source = Camera(camera.url, wake=wake)
    frames: list[VideoFrame] = []
    until = time.monotonic() + 10
    while len(frames) <= 40 and time.monotonic() < until:
        wake.wait(0.2)
        wake.clear()
        frames += source.take()
        dropped = source.frames_dropped  # where this test had no turn for a quarter of a second
    assert source.alive
    source.close()
    counts = [read_counter(f.image) for f in frames]
    assert len(frames) > 40
    assert [f.seq - frames[0].seq for f in frames] == [c - counts[0] for c in counts]
    assert frames[-1].seq + 1 - len(frames) <= dropped
    assert all(b > a for a, b in pairwise(counts))
    latency = [f.t_s - camera.sent_s[c] for f, c in zip(frames, counts, strict=True)]
    assert min(latency) >= 0
    assert np.quantile(latency, 0.2) < 0.03
    image = frames[0].image
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8


def test_a_slow_consumer_gets_the_newest_frames_and_the_rest_are_counted(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    source = Camera(camera.url)
    until = time.monotonic() + 10
    while source.frames_dropped <= 15 and time.monotonic() < until:
        time.sleep(0.05)
    frames = source.take()
    sent = max(camera.sent_s)
    source.close()
    assert len(frames) == 8
    assert source.frames_dropped > 15
    assert sent - read_counter(frames[-1].image) < 5, "the newest eight were kept"


def test_a_camera_that_is_unplugged_comes_back(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    notices: list[str] = []
    source = Camera(camera.url, notice=notices.append)
    camera.stop()
    deadline = time.monotonic() + 10
    while not notices and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "is gone" in notices[0]
    seq = source.take()[-1].seq
    camera.start()
    while len(notices) < 2 and time.monotonic() < deadline + 10:
        time.sleep(0.05)
    frames = source.take()
    source.close()
    assert "is back" in notices[1]
    assert frames[0].seq > seq


def test_an_address_that_serves_nothing_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("cv2")
    monkeypatch.setattr("clcr_edge.runtime.camera._OPEN_MS", 1_000)
    import socket

    from clcr_edge.runtime.camera import Camera

    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(SourceError, match="cannot be opened"):
            Camera(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert time.monotonic() - begun < 10


def test_a_camera_named_is_found_again_under_another_index(camera: CameraServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on USB comes back: /dev/video0 is still taken, and it is /dev/video2 now."""
    import cv2

    there = [VideoDevice(0, "/dev/video0", "HD Webcam")]
    opened: list[int] = []
    real = cv2.VideoCapture

    def driver(index: int) -> Any:
        opened.append(index)
        return real(camera.url if index == there[0].index else "/nowhere", cv2.CAP_FFMPEG)

    monkeypatch.setattr(cv2, "VideoCapture", driver)
    monkeypatch.setattr("clcr_edge.runtime.video_devices.list_video_devices", lambda: there)
    notices: list[str] = []
    source = open_camera(Source("device", "webcam"), wake=threading.Event(), notice=notices.append)
    until = time.monotonic() + 20
    there[0] = VideoDevice(2, "/dev/video2", "HD Webcam")
    camera.stop()
    while time.monotonic() < until and not notices:
        time.sleep(0.02)
    camera.start()
    while time.monotonic() < until and len(notices) < 2:
        time.sleep(0.02)
    source.close()
    assert notices == [
        "camera webcam is gone; predictions go on without it while it is looked for",
        "camera webcam is back",
    ]
    assert opened[0] == 0
    assert opened[-1] == 2


def test_only_capturing_nodes_are_cameras(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"no device")
    (tmp_path / "videology").touch()
    assert list_video_devices(tmp_path, tmp_path) == []


# -- sound of a network stream -----------------------------------------------------------------------------------------


def test_the_audio_of_a_stream(tmp_path: Path) -> None:
    from clcr_edge.runtime.network_audio import NetworkAudio

    played = noise(2.0)
    radio = RadioServer(played)
    wake = threading.Event()
    notices: list[str] = []
    source = NetworkAudio(radio.url, wake=wake, notice=notices.append)
    chunks, lags = collect_audio(source, 2.5, wake)
    assert source.alive
    got = samples(chunks)
    assert find_in(got, played[8_000:16_000])[1] > 0.99
    assert max(abs(b.t_s - a.end_s) for a, b in pairwise(chunks)) < 0.05
    assert np.median(lags) < 0.3
    radio.close()
    deadline = time.monotonic() + 10
    while not notices and time.monotonic() < deadline:
        time.sleep(0.05)
    source.close()
    assert "is gone" in notices[0]


# -- the whole ---------------------------------------------------------------------------------------------------------


def start_run(tiny_bundle: Path, sound: SoundServer, camera: CameraServer, *options: str) -> subprocess.Popen[str]:
    """`clcr-edge run --json` on both servers; every tick is predicted, however busy the machine."""
    command = [sys.executable, "-m", "clcr_edge", "run", str(tiny_bundle), "--camera", camera.url, "--json", "--no-shedding"]
    return subprocess.Popen(
        [*command, *options],
        env={**sound.env, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_for(process: subprocess.Popen[str], seconds: float) -> list[dict[str, Any]]:
    """The predictions of `seconds` of stream time."""
    assert process.stdout is not None
    out: list[dict[str, Any]] = []
    while len(out) < seconds * 25:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        out.append(json.loads(line))
    return out


def finish(process: subprocess.Popen[str]) -> str:
    process.send_signal(2)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return err


def test_live_predictions_hear_see_and_understand(
    tiny_bundle: Path, sound: SoundServer, camera: CameraServer, tmp_path: Path
) -> None:
    need_module("vosk")
    need_program("espeak-ng")
    wav = tmp_path / "say.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(wav), "seven. three. nine."], check=True)
    process = start_run(tiny_bundle, sound, camera)
    first = read_for(process, 0.4)
    player = sound.play(wav)
    predictions = first + read_for(process, 4.0)
    late_s = time.monotonic() - predictions[-1]["t_s"]
    player.wait()
    err = finish(process)
    assert [p["tick"] for p in predictions] == list(range(len(predictions)))
    assert all(b["t_s"] - a["t_s"] == pytest.approx(0.04, abs=1e-5) for a, b in pairwise(predictions))
    assert sum(p["age_s"]["audio"] == 0 for p in predictions) > 0.8 * len(predictions)
    assert sum(p["frame_seq"] is not None for p in predictions) > 0.9 * len(predictions)
    words = [w for p in predictions for w in p["words"]]
    assert words[:3] == ["seven", "three", "nine"]
    assert late_s < 1.0  # a busy machine; idle it is 5 ms
    assert len(err.splitlines()) == 1


def test_unplugged_sources_go_and_come_back_and_predictions_never_stop(
    tiny_bundle: Path, camera: CameraServer, sound: SoundServer
) -> None:
    process = start_run(tiny_bundle, sound, camera, "--no-stt")
    try:
        predictions = read_for(process, 1.0)
        sound.kill()
        camera.stop()
        predictions += read_for(process, 2.0)
        gone = predictions[-1]
        sound.start()
        camera.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            predictions += read_for(process, 0.2)
            if predictions[-1]["frame_seq"] is not None and predictions[-1]["age_s"]["audio"] == 0:
                break
    finally:
        err = finish(process)
    assert gone["frame_seq"] is None
    assert gone["age_s"]["audio"] > 1.0
    assert predictions[-1]["frame_seq"] is not None
    assert predictions[-1]["age_s"]["audio"] == 0
    assert [p["tick"] for p in predictions] == list(range(len(predictions)))
    assert all(b["t_s"] - a["t_s"] == pytest.approx(0.04, abs=1e-5) for a, b in pairwise(predictions))
    lines = err.splitlines()
    assert sum("is gone" in line for line in lines) == sum("is back" in line for line in lines) == 2
    assert len(lines) == 5


def test_stalled_servers_cost_their_modality_and_the_end_does_not_hang(
    tiny_bundle: Path, camera: CameraServer, sound: SoundServer
) -> None:
    process = start_run(tiny_bundle, sound, camera, "--no-stt")
    try:
        predictions = read_for(process, 1.0)
        sound.stall()
        camera.frozen.set()
        predictions += read_for(process, 1.4)
        begun = time.monotonic()
        finish(process)  # PortAudio itself would wait for ever
        ended_s = time.monotonic() - begun
    finally:
        sound.resume()
    assert predictions[-1]["frame_seq"] is None
    assert predictions[-1]["age_s"]["audio"] > 0.8
    assert ended_s < 20


def test_a_sound_server_that_is_away_is_one_line(tiny_bundle: Path, camera: CameraServer) -> None:
    if Path("/dev/snd").exists():
        pytest.skip("this machine has sound hardware")
    for options, may_do_without in ((["--camera", camera.url], True), (["--no-camera"], False)):
        done = subprocess.run(
            [sys.executable, "-m", "clcr_edge", "run", str(tiny_bundle), *options, "--no-stt"],
            env={**os.environ, "PULSE_SERVER": "unix:/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("clcr-edge: microphone: ")
        assert line.endswith(", or give --no-mic") == may_do_without
