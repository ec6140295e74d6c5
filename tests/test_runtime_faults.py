"""Faults injected into real sources: OpenCV on an HTTP camera that misbehaves, PortAudio on a sound server that dies, stalls,
sleeps or comes back at another rate, and the whole command with all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import noise
from live_rig import (
    CameraServer,
    RadioServer,
    SoundServer,
    camera_server,
    need_module,
    need_program,
    read_counter,
    write_wav,
)

from clcr_edge.packets import VideoFrame
from clcr_edge.runtime.source_state import SourceState

pytestmark = pytest.mark.live


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return False


# -- camera ------------------------------------------------------------------------------------------------------------


def frames_for(source: Any, seconds: float) -> list[VideoFrame]:
    out: list[VideoFrame] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        out += source.take()
        time.sleep(0.02)
    return out


def test_frames_that_cannot_be_decoded_are_counted_and_the_stream_goes_on(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    notices: list[str] = []
    source = Camera(camera.url, notice=notices.append)
    frames_for(source, 0.5)
    left = iter(range(6))  # frames, not seconds: of those a busy machine may make any number
    camera.damage = lambda jpeg: jpeg if next(left, None) is None else os.urandom(len(jpeg))
    assert wait_for(lambda: source.health.damaged >= 2)
    frames = frames_for(source, 0.7)
    until = time.monotonic() + 5
    while len(frames) <= 10 and time.monotonic() < until:
        frames += frames_for(source, 0.1)
    assert len(frames) > 10
    health = source.health
    assert 2 <= health.damaged <= 12
    assert health.reconnects == 0  # opening anew would have cost more
    assert health.state is SourceState.DEGRADED
    assert notices == [f"camera {camera.url} is degraded: frames that cannot be decoded"]
    source.close()


def test_a_camera_that_gives_nothing_but_rubbish_is_opened_anew(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    source = Camera(camera.url)
    camera.damage = lambda jpeg: os.urandom(len(jpeg))
    assert wait_for(lambda: source.state is SourceState.LOST)
    camera.damage = None
    assert wait_for(lambda: source.state is SourceState.LIVE)
    assert source.health.reconnects >= 1
    source.close()


def test_a_resolution_that_changes_in_the_stream_costs_no_frame(camera: CameraServer) -> None:
    from clcr_edge.runtime.camera import Camera

    source = Camera(camera.url)
    before = frames_for(source, 0.4)
    camera.size = (240, 320)
    after = frames_for(source, 0.8)
    source.close()
    counts = [read_counter(f.image) for f in before + after]
    assert counts == list(range(counts[0], counts[0] + len(counts)))
    assert source.health.reconnects == 0


def test_a_stalled_camera_is_seen_and_one_that_goes_slow_is_degraded(
    camera: CameraServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clcr_edge.runtime.frame_watch._SPAN_S", 0.4)
    from clcr_edge.runtime.camera import Camera

    source = Camera(camera.url)
    frames_for(source, 1.8)
    camera.fps = 5.0
    assert wait_for(lambda: source.state is SourceState.DEGRADED)
    assert wait_for(lambda: "frames/s, usually" in source.health.reason)
    camera.fps = 30.0
    assert wait_for(lambda: source.state is SourceState.LIVE)
    camera.frozen.set()
    assert wait_for(lambda: source.state is SourceState.STALLED, 1.9)
    assert wait_for(lambda: source.state is SourceState.LOST)  # the read has a limit of 2 s
    camera.frozen.clear()
    assert wait_for(lambda: source.state is SourceState.LIVE)
    health = source.health
    assert health.reconnects >= 1
    assert health.gaps >= 1
    source.close()


def test_a_picture_that_stands_still_is_told(camera: CameraServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clcr_edge.runtime.frame_watch._STILL_S", 0.6)
    monkeypatch.setattr("clcr_edge.runtime.frame_watch._LIVELY", 20)
    from clcr_edge.runtime.camera import Camera

    source = Camera(camera.url)
    frames_for(source, 1.5)
    assert wait_for(lambda: source.state is SourceState.LIVE)
    camera.still = True
    assert wait_for(lambda: "stood still" in source.health.reason, 5)
    assert source.state is SourceState.DEGRADED
    assert wait_for(lambda: len(source.take()) > 0)  # they are used all the same
    camera.still = False
    assert wait_for(lambda: source.state is SourceState.LIVE)
    source.close()


# -- sound of a network stream -----------------------------------------------------------------------------------------


def test_the_sound_of_a_stream_that_nobody_takes_is_bounded_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in packets: 500 of those of an AAC stream at 8 kHz are more than a minute."""
    monkeypatch.setattr("clcr_edge.runtime.network_audio._MOST_WAITING_S", 0.5)
    from clcr_edge.runtime.network_audio import NetworkAudio

    radio = RadioServer(noise(2.0))
    source = NetworkAudio(radio.url)
    before = source.drops  # what FFmpeg had stored while it looked at the stream
    assert wait_for(lambda: source.drops >= before + 5)
    chunks = source.take()
    source.close()
    radio.close()
    assert 0.3 < sum(len(c.samples) for c in chunks) / 16_000 <= 0.5
    assert time.monotonic() - chunks[-1].end_s < 0.5  # the newest are kept


def test_the_audio_of_a_stream_comes_back() -> None:
    from clcr_edge.runtime.network_audio import NetworkAudio

    radio = RadioServer(noise(2.0))
    notices: list[str] = []
    source = NetworkAudio(radio.url, notice=notices.append)
    assert source.alive
    port = radio.port
    radio.close()
    assert wait_for(lambda: source.state is SourceState.LOST)
    radio = RadioServer(noise(2.0), port)
    assert wait_for(lambda: source.state is SourceState.LIVE)
    health = source.health
    source.close()
    radio.close()
    assert ("is gone" in notices[0], notices[1:]) == (True, [f"{source.name} is back"])
    assert health.reconnects >= 1


# -- microphone --------------------------------------------------------------------------------------------------------

# In a process of its own: PortAudio looks for its server once, when it is first imported. Commands come in by stdin.
MICROPHONE = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[1])
import clcr_edge.runtime.microphone as module
given_up_s = float(sys.argv[2])
module._GIVEN_UP_S = given_up_s
wake, notices, log = threading.Event(), [], []
takes = module.takes_rate
microphone = module.Microphone(sys.argv[3] or None, wake=wake, notice=notices.append)
def read():
    for line in sys.stdin:
        word = line.strip()
        if word == "only 44100":
            module.takes_rate = lambda sd, device, channels, rate_hz: rate_hz == 44_100
        if word == "end":
            break
    ended.set()
ended = threading.Event()
threading.Thread(target=read, daemon=True).start()
last = None
while not ended.is_set():
    wake.wait(0.05)
    wake.clear()
    chunks = microphone.take()
    h = microphone.health
    row = {"t": time.monotonic(), "state": h.state.value, "gaps": h.gaps, "reconnects": h.reconnects, "drops": h.drops,
           "reason": h.reason, "rate": microphone._native_hz, "samples": sum(len(c.samples) for c in chunks),
           "late": time.monotonic() - chunks[-1].end_s if chunks else None, "notices": list(notices), "name": microphone.name}
    print(json.dumps(row), flush=True)
begun = time.monotonic()
microphone.close()
print(json.dumps({"closed_s": time.monotonic() - begun}), flush=True)
from clcr_edge.runtime.deadline import abandoned
import os
os._exit(0)
"""


class Mic:
    """A microphone in another process, row by row of its health."""

    def __init__(self, server: SoundServer, given_up_s: float = 10.0, name: str = "", alsa: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", MICROPHONE, str(Path(__file__).parent), str(given_up_s), name],
            env=server.env if alsa is None else {**server.env, "ALSA_CONFIG_PATH": str(alsa)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.row: dict[str, Any] = {}

    def until(self, what: Callable[[dict[str, Any]], bool], seconds: float = 15.0) -> dict[str, Any]:
        """Read on until a row is so; that row."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            line = self._process.stdout.readline()
            assert line, "the microphone's process has ended"
            self.row = json.loads(line)
            if what(self.row):
                return self.row
        raise AssertionError(f"never came; last: {self.row}")

    def say(self, word: str) -> None:
        """A command."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def end(self) -> float:
        """Close it; seconds that took."""
        self.say("end")
        row = self.until(lambda r: "closed_s" in r, 30)
        self._process.wait(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return float(row["closed_s"])


def live(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "live" and row["samples"])


def test_a_suspended_source_leaves_a_hole_that_is_counted(sound: SoundServer) -> None:
    mic = Mic(sound)
    mic.until(live)
    time.sleep(1.2)
    mic.until(live)
    sound.pactl("suspend-sink", "clcr", "1")
    mic.until(lambda r: r["state"] == "stalled")
    time.sleep(1.8)
    sound.pactl("suspend-sink", "clcr", "0")
    row = mic.until(lambda r: live(r) and r["gaps"] >= 1)
    mic.until(lambda r: live(r) and r["t"] > row["t"] + 1.0 and r["late"] < 0.3)  # the stamps know of the hole
    assert mic.row["reconnects"] == 0
    mic.end()


def test_a_stall_that_ends_by_itself_needs_no_reopening(sound: SoundServer) -> None:
    mic = Mic(sound)
    mic.until(live)
    sound.stall()
    try:
        mic.until(lambda r: r["state"] == "stalled")
        time.sleep(1.0)
    finally:
        sound.resume()
    mic.until(live)
    assert mic.row["reconnects"] == 0
    mic.end()


def test_a_stall_that_lasts_is_given_up_and_the_device_opened_anew(sound: SoundServer) -> None:
    mic = Mic(sound, given_up_s=1.0)
    mic.until(live)
    sound.stall()
    try:
        mic.until(lambda r: r["state"] == "stalled")
        mic.until(lambda r: r["state"] == "lost")
        mic.until(lambda r: "hangs" in r["reason"], 20)  # closing hung for its 5 s; nothing else is tried meanwhile
    finally:
        sound.resume()
    mic.until(lambda r: live(r) and r["reconnects"] == 1, 20)
    mic.until(lambda r: live(r) and r["late"] < 0.3)
    assert mic.end() < 8


def test_a_server_that_was_killed_comes_back_with_another_sample_rate(sound: SoundServer) -> None:
    mic = Mic(sound)
    assert mic.until(live)["rate"] == 16_000
    sound.kill()
    mic.until(lambda r: r["state"] in ("lost", "reconnecting"))
    mic.say("only 44100")  # a sound card that takes nothing else
    sound.start(rate_hz=44_100)
    row = mic.until(lambda r: live(r) and r["rate"] == 44_100, 20)
    heard, begun = 0, row["t"]
    while mic.row["t"] < begun + 2.0:
        heard += mic.until(lambda r: True)["samples"]
    assert heard == pytest.approx((mic.row["t"] - begun) * 16_000, rel=0.15)  # still 16 kHz
    assert mic.row["reconnects"] == 1
    assert [n.split()[-1] for n in mic.row["notices"]] == ["for", "back"]
    mic.end()
    sound.kill()
    sound.start()


def test_a_microphone_that_comes_back_as_another_device_is_found(sound: SoundServer, tmp_path: Path) -> None:
    """As one on USB does: plugged in again, its card may have another number, and what it was called before does not open."""
    config = tmp_path / "asound.conf"

    def plugged(*names: str) -> None:
        devices = [f"pcm.{name} {{ type pulse\n hint {{ show on\n description {name} }} }}\n" for name in names]
        config.write_text("".join(devices) + "pcm.!default { type pulse }\nctl.!default { type pulse }\n")

    plugged("usb_card1")
    mic = Mic(sound, name="usb", alsa=config)
    assert mic.until(live)["name"] == "usb_card1"
    sound.kill()
    plugged("headset", "usb_card2")
    mic.until(lambda r: "usb_card1" in r["reason"])  # what it was called does not open
    sound.start()
    assert mic.until(lambda r: live(r) and r["reconnects"] == 1, 20)["name"] == "usb_card2"
    mic.end()


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_in_each_prediction_how_its_sources_are(
    proof_bundle: Path, sound: SoundServer, camera: CameraServer, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "clcr_edge", "run", str(proof_bundle), "--camera", camera.url, "--json", "--no-stt"],
        env={**sound.env, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    player = sound.play(write_wav(tmp_path / "noise.wav", noise(3.0)))
    seen: list[tuple[str, str]] = []
    deadline = time.monotonic() + 60

    def until(camera_state: str, microphone_state: str) -> None:
        while time.monotonic() < deadline:
            assert process.stdout is not None
            now = json.loads(process.stdout.readline())["sources"]
            seen.append((now["camera"], now["microphone"]))
            if seen[-1] == (camera_state, microphone_state):
                return
        raise AssertionError(f"never came; last: {seen[-5:]}")

    try:
        until("live", "live")
        sound.kill()
        until("live", "lost")
        camera.stop()
        until("lost", "lost")
        sound.start()
        camera.start()
        until("live", "live")
        player.wait()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert {s for pair in seen for s in pair} <= {s.value for s in SourceState}
    assert sum("is gone" in line for line in err.splitlines()) == sum("is back" in line for line in err.splitlines()) == 2


# Time passes as ever; only the patience with a recogniser that hangs is shorter than on a robot.
IMPATIENT = """
import sys
from clcr_edge.runtime import threaded_speech
threaded_speech._GIVEN_UP_S, threaded_speech._STALLED_S = 1.0, 0.4
sys.argv = ["clcr-edge", *sys.argv[1:]]
from clcr_edge.cli import main
main()
"""


def speech_process(parent: int) -> int:
    """The process in which the recogniser of a running command listens; 0 if there is none now."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            ours = stat.read_text().rpartition(")")[2].split()[1] == str(parent)
            if ours and b"speech_process" in (stat.parent / "cmdline").read_bytes():
                return int(stat.parent.name)
    return 0


def test_after_an_abort_and_a_hang_of_vosk_words_come_again(
    proof_bundle: Path, sound: SoundServer, tmp_path: Path
) -> None:
    need_module("vosk")
    need_program("espeak-ng")
    wav = tmp_path / "say.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(wav), "seven. three. nine."], check=True)
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "run", str(proof_bundle), "--no-camera", "--json"],
        env={**sound.env, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: list[str] = []
    ticks: list[int] = []
    words: list[str] = []

    def until(what: Callable[[], bool]) -> None:
        assert process.stdout is not None
        deadline = time.monotonic() + 30
        while not what() and time.monotonic() < deadline:
            line = json.loads(process.stdout.readline())
            ticks.append(line["tick"])
            words.extend(line["words"])
            if seen[-1:] != [line["sources"]["speech"]]:
                seen.append(line["sources"]["speech"])
        assert what(), (seen, words)

    try:
        until(lambda: seen[-1:] == ["live"])
        os.kill(speech_process(process.pid), signal.SIGABRT)  # as Vosk itself does on an error of its own
        until(lambda: seen[-1] == "lost")
        until(lambda: seen[-1] == "live")
        stopped = speech_process(process.pid)
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: seen[-1] == "stalled")
        until(lambda: seen[-1] == "lost")
        until(lambda: seen[-1] == "live")
        assert not Path(f"/proc/{stopped}").exists()  # what hung was ended: nothing is left behind
        player = sound.play(wav)
        until(lambda: len(words) >= 3)
        player.wait()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert words[:3] == ["seven", "three", "nine"]
    assert ticks == list(range(len(ticks)))
    lines = [line for line in err.splitlines() if "speech recognition" in line]
    assert lines[0] == (
        "clcr-edge: speech recognition has stopped (its process was ended by SIGABRT); "
        "predictions go on without new words until it is back"
    )
    assert lines[-1] == "clcr-edge: speech recognition is back"


BROKEN_ENGINE = """
import sys
from clcr_edge.runtime import onnx_engine
step, calls = onnx_engine.OnnxEngine.step, [0]
def failing(self, inputs, state):
    calls[0] += 1
    if calls[0] > 10:
        import numpy as np
        state = {**state, next(iter(state)): np.zeros((1, 1), np.float32)}
    return step(self, inputs, state)
onnx_engine.OnnxEngine.step = failing
sys.argv = ["clcr-edge", *sys.argv[1:]]
from clcr_edge.cli import main
main()
"""


def test_an_engine_that_fails_ends_the_command_with_one_line(proof_bundle: Path, camera: CameraServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_ENGINE, "run", str(proof_bundle), "--camera", camera.url, "--no-mic", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 10
    *_, line = done.stderr.splitlines()
    assert line.startswith("clcr-edge: ONNX Runtime failed in a step of the fp32 graph (")
    assert "Traceback" not in done.stderr


def test_the_network_is_not_asked_twice_at_once() -> None:
    """While a source is looked for there is one thread for it, however long it is away."""
    from clcr_edge.runtime.camera import Camera

    with camera_server() as server:
        before = threading.active_count()
        source = Camera(server.url)
        during = threading.active_count()
        server.stop()
        assert wait_for(lambda: source.state is SourceState.LOST)
        time.sleep(2.0)
        assert threading.active_count() <= during
        source.close()
        assert threading.active_count() <= before
        server.start()
    assert np.isfinite(source.health.since_s)
