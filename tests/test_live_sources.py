"""Sources as people have them, on real parts: GStreamer in Debian's OpenCV, sound servers of any rate and number of channels,
a wall clock that is set, and the offset between a camera and a microphone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import wave
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
from clips import find_in, noise
from live_rig import CameraServer, SoundServer, need_module, write_wav
from test_runtime_sync import beeps, lamp

from clcr_edge.packets import FloatArray
from clcr_edge.runtime.av_events import Times

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "/usr/bin/python3"  # the system's own, whose OpenCV has GStreamer; numpy is all that it needs besides


# -- GStreamer ---------------------------------------------------------------------------------------------------------

GSTREAMER = """
import json, sys, threading, time
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.runtime.camera import Camera
try:
    wake = threading.Event()
    source = Camera(sys.argv[1], wake=wake)
    frames, until = [], time.monotonic() + 1.0
    while time.monotonic() < until:
        wake.wait(0.2)
        wake.clear()
        frames += source.take()
    source.close()
    image = frames[-1].image
    bars = [image[10, (2 * k + 1) * image.shape[1] // 14].tolist() for k in range(7)]
    print(json.dumps({"count": len(frames), "shape": image.shape, "dtype": str(image.dtype), "bars": bars}))
except ClcrEdgeError as e:
    print(json.dumps({"error": str(e)}))
"""


@pytest.fixture(scope="module")
def gstreamer_python() -> str:
    probe = "import sys, cv2; sys.exit('  GStreamer:                   YES' not in cv2.getBuildInformation())"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("needs an OpenCV with GStreamer: apt install python3-opencv gstreamer1.0-plugins-base")
    return PYTHON


def gstreamer(python: str, source: str) -> dict[str, Any]:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-c", GSTREAMER, source], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    "source",
    [
        "gst:videotestsrc is-live=true ! video/x-raw,width=322,height=240,framerate=30/1",
        "videotestsrc is-live=true ! video/x-raw,format=BGR,width=322,height=240,framerate=30/1 ! appsink drop=true",
    ],
)
def test_a_gstreamer_pipeline_gives_frames_in_true_colours(gstreamer_python: str, source: str) -> None:
    got = gstreamer(gstreamer_python, source)
    assert got["shape"] == [240, 322, 3]
    assert got["dtype"] == "uint8"
    assert 20 <= got["count"] <= 45
    # SMPTE bars: grey, yellow, cyan, green, magenta, red, blue; RGB.
    assert [[round(v / 191) for v in bar] for bar in got["bars"]] == [
        *([1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]),
    ]


def test_a_pipeline_that_does_not_run_is_one_line_with_the_command_that_says_why(gstreamer_python: str) -> None:
    error = gstreamer(gstreamer_python, "gst:videotestsrc ! nosuchelement")["error"]
    assert error == (
        "camera gst:videotestsrc ! nosuchelement: cannot be opened; try it with: "
        "gst-launch-1.0 'videotestsrc ! nosuchelement ! videoconvert ! video/x-raw,format=BGR ! fakesink'"
    )


# -- microphones of any format -----------------------------------------------------------------------------------------

RECORD = """
import json, sys, threading, time
import numpy as np
sys.path.insert(0, sys.argv[1])
from clcr_edge.runtime.mic_channel import parse_channel
from clcr_edge.runtime.microphone import Microphone
from test_runtime_live import collect_audio
wake = threading.Event()
channel = parse_channel(sys.argv[4]) if sys.argv[4] else None
microphone = Microphone(wake=wake, channel=channel)
print("open", flush=True)
chunks, _ = collect_audio(microphone, float(sys.argv[3]), wake)
microphone.close()
np.savez(sys.argv[2], samples=np.concatenate([c.samples for c in chunks]), starts=[c.t_s for c in chunks],
         ends=[c.end_s for c in chunks])
"""


def plug(server: SoundServer, rate_hz: int, channels: str) -> None:
    """Replace the server's microphone by one of this format."""
    count = len(channels.split(","))
    format_of = [f"rate={rate_hz}", f"channels={count}", f"channel_map={channels}", "format=s16le", "norewinds=1"]
    for command in (
        ["unload-module", "module-null-sink"],
        ["load-module", "module-null-sink", "sink_name=clcr", *format_of],
        ["set-default-sink", "clcr"],
        ["set-default-source", "clcr.monitor"],
    ):
        subprocess.run(["pactl", *command], env=server.env, check=True, capture_output=True)


def hear(server: SoundServer, tmp_path: Path, played: FloatArray, rate_hz: int, channels: str, pick: str) -> Any:
    """Play `[N, channels]` into the microphone, channel by channel as it has them, and take what it gives."""
    wav = tmp_path / "play.wav"
    with wave.open(str(wav), "wb") as f:
        f.setnchannels(played.shape[1])
        f.setsampwidth(2)
        f.setframerate(rate_hz)
        f.writeframes((np.clip(played, -1, 1) * 32_767).astype("<i2").tobytes())
    out = tmp_path / "out.npz"
    seconds = len(played) / rate_hz + 0.7
    command = [sys.executable, "-c", RECORD, str(Path(__file__).parent), str(out), str(seconds), pick]
    process = subprocess.Popen(command, env=server.env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    subprocess.run(["paplay", f"--channel-map={channels}", str(wav)], env=server.env, check=True)
    process.communicate(timeout=60)
    assert process.returncode == 0
    return np.load(out)


def at_16_khz(samples: FloatArray, rate_hz: int) -> FloatArray:
    """Resampled exactly, by its spectrum; the noise played ends below 3 kHz."""
    count = round(len(samples) * 16_000 / rate_hz)
    spectrum = np.fft.rfft(samples)
    out: FloatArray = (np.fft.irfft(spectrum[: count // 2 + 1], count) * count / len(samples)).astype(np.float32)
    return out


SURROUND = "front-left,front-right,rear-left,rear-right"


@pytest.mark.parametrize(
    ("rate_hz", "channels", "pick"),
    [
        (8_000, "mono", ""),
        (48_000, "front-left,front-right", ""),
        (44_100, SURROUND, ""),
        (16_000, SURROUND, "2/4"),
        (44_100, "front-left,front-right", "1/2"),
    ],
)
def test_any_rate_and_number_of_channels(
    sound: SoundServer, tmp_path: Path, rate_hz: int, channels: str, pick: str
) -> None:
    plug(sound, rate_hz, channels)
    count = len(channels.split(","))
    played = np.stack([noise(1.2, rate_hz, seed=k) for k in range(count)], axis=1)
    expected = played[:, int(pick[0])] if pick else played.mean(axis=1)
    wanted = at_16_khz(expected, rate_hz)[1_600:-1_600]
    for _ in range(2):  # a server on a busy machine may lose a block of the recording's playing
        got = hear(sound, tmp_path, played, rate_hz, channels, pick)
        at, correlation = find_in(got["samples"], wanted)
        if correlation > 0.998:
            break
    assert correlation > 0.998
    heard = got["samples"][at : at + len(wanted)]
    assert float(heard @ wanted / (wanted @ wanted)) == pytest.approx(1.0, abs=0.02)  # as loud as it was
    # What cannot be told apart from the wanted must not be in it: a neighbouring channel.
    if pick:
        other = at_16_khz(played[:, (int(pick[0]) + 1) % count], rate_hz)[1_600:-1_600]
        assert abs(float(heard @ other / (other @ other))) < 0.02


# -- a wall clock that is set ------------------------------------------------------------------------------------------

STEPPED = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from clcr_edge.runtime.microphone import Microphone
from test_runtime_live import collect_audio
wake = threading.Event()
microphone = Microphone(wake=wake)
wall_s = time.time() - time.monotonic()
before, _ = collect_audio(microphone, 1.5, wake)
parts, steps, lags = [before], [], []
for step in ("-0.4", "+900", "-3600"):
    Path(sys.argv[2]).write_text(step + "s")
    chunks, more = collect_audio(microphone, 1.2, wake)
    parts.append(chunks)
    lags.append(min(more))
    steps.append(time.time() - time.monotonic() - wall_s)
clock, lost = microphone._clock, microphone.drops
microphone.close()
chunks = [c for part in parts for c in part]
whole = sum(len(c.samples) for c in chunks) / 16_000 - (chunks[-1].end_s - chunks[0].t_s)
chunks = [c for c in chunks if c.t_s > chunks[0].t_s + 0.6]  # the clock has settled
gaps = [b.t_s - a.end_s for a, b in zip(chunks, chunks[1:])]
print(json.dumps({"steps": steps, "gap": max(map(abs, gaps)), "lags": lags, "jumps": clock.jumps, "lost": lost, "whole": whole,
                  "samples": sum(len(c.samples) for c in chunks), "span": chunks[-1].end_s - chunks[0].t_s}))
"""


def test_setting_the_wall_clock_moves_no_stamp(sound: SoundServer, tmp_path: Path) -> None:
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        pytest.skip("needs libfaketime, which sets the wall clock of one process: apt install faketime")
    plug(sound, 16_000, "mono")
    offset = tmp_path / "offset"
    offset.write_text("+0s")
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    env = {**sound.env, **faked, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    command = [sys.executable, "-c", STEPPED, str(Path(__file__).parent), str(offset)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["steps"] == pytest.approx([-0.4, 900.0, -3_600.0], abs=0.2)  # it was set indeed
    assert all(-0.005 < lag < 0.2 for lag in got["lags"])  # the promptest chunk after each step
    if got["lost"] == 0:  # a machine that stood still for a third of a second has a true hole
        assert got["gap"] < 0.002
        assert got["jumps"] == 0
        assert got["samples"] / 16_000 == pytest.approx(got["span"], abs=0.005)
        assert abs(got["whole"]) < 0.05  # blocks of a busy server settle the clock's rate late


# -- the offset between a camera and a microphone ----------------------------------------------------------------------


class FlashServer(CameraServer):
    """A camera that sees a lamp go on at `flash_s` (monotonic); at an address that ends in a number it is so late, in ms."""

    flash_s: Times = np.empty(0)
    asked = 0

    def _serve(self, client: socket.socket, up: threading.Event) -> None:
        import cv2

        # Every address shows the same instants: then what a frame is too coarse to tell is the same for all of them.
        begun = np.ceil(time.monotonic() * self.fps) / self.fps
        with suppress(OSError):
            asked = client.recv(4096).split()[1].decode()
            late_s = int(asked.rpartition("/")[2]) / 1e3
            self.asked += 1
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            count = 0
            while up.is_set():
                taken_s = begun + count / self.fps
                time.sleep(max(0.0, taken_s + late_s - time.monotonic()))
                jpeg = cv2.imencode(".jpg", lamp(taken_s, self.flash_s))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                client.sendall(head.encode() + jpeg + b"\r\n")
                count += 1

    def late(self, ms: int) -> str:
        """The address of the camera that is so late."""
        return f"http://127.0.0.1:{self._port}/{ms}"


def test_sync_measures_a_late_camera_and_run_takes_it_off(sound: SoundServer, tmp_path: Path, proof_bundle: Path) -> None:
    """Two cameras at once, one 150 ms late: what the sound server itself delays is the same for both."""
    need_module("cv2")
    plug(sound, 16_000, "mono")
    env = {**sound.env, "XDG_CONFIG_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "clcr_edge"]
    server = FlashServer(30.0)
    try:
        urls = [server.late(0), server.late(150)]
        options = ["--events", "6", "--seconds", "20", "--json"]
        running = [
            subprocess.Popen([*command, "sync", "--camera", url, *options], env=env, stdout=PIPE, stderr=PIPE, text=True)
            for url in urls
        ]
        for process in running:
            assert process.stderr is not None
            assert "clap before" in process.stderr.readline()
        until = time.monotonic() + 15
        while server.asked < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(2.0)  # both look at it, and have opened their microphones
        times = 0.3 + np.cumsum(np.random.default_rng(4).uniform(0.5, 0.9, 7))
        wav = write_wav(tmp_path / "beeps.wav", beeps(times.astype(np.float32), 6.5, hiss=0.0005))
        begun_s = time.monotonic()
        player = sound.play(wav)
        server.flash_s = begun_s + 0.02 + times
        results = []
        for process in running:
            out, err = process.communicate(timeout=40)
            assert process.returncode == 0, err
            results.append(json.loads(out))
        player.wait()
        print(results)
        prompt, late = results
        assert prompt["events"] >= 6
        assert prompt["kind"] == late["kind"] == "flash"
        assert prompt["offset_ms"] == pytest.approx(0, abs=200)  # the player begins when it begins
        # Each says its doubt, of one standard deviation: the gate of a busy machine may not fail on two of them.
        doubt_ms = np.hypot(late["doubt_ms"], prompt["doubt_ms"])
        assert doubt_ms < late["frame_ms"] / 2
        assert late["offset_ms"] - prompt["offset_ms"] == pytest.approx(150, abs=4 * max(doubt_ms, 3))
        assert late["spread_ms"] < late["frame_ms"]
        run = [*command, "run", str(proof_bundle), "--camera", urls[1], "--no-stt", "--json", "--duration", "2"]
        done = subprocess.run(run, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        told = re.search(r"stamps of pictures are moved (\d+) ms back", done.stderr)
        assert told, done.stderr
        moved_ms = int(told[1])
        assert told[1] == f"{round(late['offset_ms'] / 1e3, 4) * 1e3:.0f}"
        last = [json.loads(line) for line in done.stdout.splitlines()][-20:]
        both = [p for p in last if p["skew_ms"] is not None]
        assert both
        for p in both:
            assert p["skew_ms"] == pytest.approx((p["age_s"]["audio"] - p["age_s"]["vision"]) * 1e3, abs=0.01)
        # Of the frames that are here when a tick's audio is, the newest was taken so long before.
        assert -moved_ms - 80 <= np.median([p["skew_ms"] for p in both]) <= -moved_ms + 80
    finally:
        server.stop()
    assert [p.name for p in (tmp_path / "clcr-edge").rglob("*")] == ["sync.toml"]
