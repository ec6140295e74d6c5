"""A microphone and a camera without hardware: a PulseAudio null sink, and an HTTP server of moving JPEGs."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clcr_edge.packets import ByteArray, FloatArray

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(name: str) -> Path:
    """A file under ../shared, or skip."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/{name}")
    return path


def need_program(*names: str) -> None:
    """Skip unless every program is installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs the program {', '.join(missing)} (apt install)")


def need_module(name: str) -> None:
    """Skip unless an optional package, and the library under it, can be imported."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as e:
        pytest.skip(f"needs {name}: pip install 'clcr-edge[live]', apt install libportaudio2 ({e})")


class SoundServer:
    """A PulseAudio daemon of our own with a null sink; what is played into it is what the microphone hears."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "pulse.sock"
        self.address = f"unix:{self._socket}"
        self._daemon: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def env(self) -> dict[str, str]:
        """Environment in which programs find this server."""
        return {**os.environ, "PULSE_SERVER": self.address}

    def start(self, rate_hz: int = 16_000) -> None:
        """Start the daemon (again, on the same socket)."""
        env = {k: v for k, v in os.environ.items() if k not in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "PULSE_SERVER")}
        for name, key in (("home", "HOME"), ("run", "XDG_RUNTIME_DIR"), ("run", "PULSE_RUNTIME_PATH")):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
            env[key] = str(self._folder / name)
        self._daemon = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"),
                *("--realtime=no", "--high-priority=no", f"--log-target=newfile:{self._folder}/pulse.log"),
                *("-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"),
                # norewinds: without it the monitor hands over its first second late and stamps it wrongly.
                *("-L", f"module-null-sink sink_name=clcr rate={rate_hz} channels=1 format=s16le norewinds=1"),
            ],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "info"], env=self.env, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "pulseaudio did not start"
            time.sleep(0.05)
        self.pactl("set-default-sink", "clcr")
        self.pactl("set-default-source", "clcr.monitor")

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a WAV file into the microphone; returns at once."""
        return subprocess.Popen(["paplay", str(path)], env=self.env)

    def pactl(self, *command: str) -> None:
        """Tell the daemon something."""
        subprocess.run(["pactl", *command], env=self.env, check=True, capture_output=True)

    def stall(self) -> None:
        """The daemon stops answering."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The daemon answers again."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """The daemon dies."""
        if self._daemon is not None:
            self.resume()
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None


@contextmanager
def sound_server() -> Iterator[SoundServer]:
    """A `SoundServer` in a folder with a short path (a socket's path has at most 107 characters)."""
    need_program("pulseaudio", "pactl", "paplay")
    need_module("sounddevice")
    with tempfile.TemporaryDirectory(prefix="clcr-") as folder:
        server = SoundServer(Path(folder))
        try:
            yield server
        finally:
            server.kill()


def write_wav(path: Path, samples: FloatArray, rate_hz: int = 16_000) -> Path:
    """Mono 16-bit WAV."""
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate_hz)
        f.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


def counter_image(count: int, height: int = 120, width: int = 160) -> ByteArray:
    """A grey picture that carries a 16-bit number as black and white blocks along its top."""
    image = np.full((height, width, 3), 96, np.uint8)
    image[height // 4 :, :] = (count * 3) % 200
    for bit in range(16):
        image[: height // 4, bit * width // 16 : (bit + 1) * width // 16] = 255 if count >> bit & 1 else 0
    return image


def read_counter(image: npt.NDArray[np.uint8]) -> int:
    """The number in a `counter_image`."""
    height, width = image.shape[:2]
    row = image[height // 8, :, 1]
    return sum(int(row[bit * width // 16 + width // 32] > 127) << bit for bit in range(16))


class CameraServer:
    """Serves `counter_image`s as HTTP MJPEG on the loopback interface."""

    def __init__(self, fps: float = 30.0) -> None:
        self.fps = fps
        self._port = 0
        self.damage: Callable[[bytes], bytes] | None = None  # what becomes of a frame's JPEG
        self.size = (120, 160)
        self.still = False  # the same picture again and again
        self.sent_s: dict[int, float] = {}
        self.start()

    @property
    def url(self) -> str:
        """What to give as --camera."""
        return f"http://127.0.0.1:{self._port}/video.mjpg"

    def start(self) -> None:
        """Serve (again, on the same port)."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._up = threading.Event()
        self._up.set()
        self.frozen = threading.Event()
        threading.Thread(target=self._accept, args=(self._listener, self._up), daemon=True).start()

    def stop(self) -> None:
        """Pull the plug: refuse new clients, cut off the present ones."""
        self._up.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def _accept(self, listener: socket.socket, up: threading.Event) -> None:
        while up.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client, up), daemon=True).start()

    def _serve(self, client: socket.socket, up: threading.Event) -> None:
        import cv2

        count = 0
        due = time.monotonic()
        with suppress(OSError):
            client.recv(4096)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            while up.is_set():
                jpeg = cv2.imencode(".jpg", counter_image(count, *self.size))[1].tobytes()
                if self.damage is not None:
                    jpeg = self.damage(jpeg)
                time.sleep(max(0.0, due - time.monotonic()))
                due += 1 / self.fps
                while self.frozen.is_set() and up.is_set():
                    time.sleep(0.02)
                self.sent_s[count] = time.monotonic()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                client.sendall(head.encode() + jpeg + b"\r\n")
                count += not self.still


@contextmanager
def camera_server(fps: float = 30.0) -> Iterator[CameraServer]:
    """A `CameraServer`, stopped at the end."""
    need_module("cv2")
    server = CameraServer(fps)
    try:
        yield server
    finally:
        server.stop()


class RadioServer:
    """Serves a recording as HTTP audio (WAV) in real time, again and again."""

    def __init__(self, samples: FloatArray, port: int = 0) -> None:
        self._pcm = (np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/radio.wav"
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
        begun = time.monotonic()
        with suppress(OSError):
            client.recv(4096)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + head + b"data\xff\xff\xff\xff")
            sent = 0
            while True:
                at = sent % len(self._pcm)
                block = self._pcm[at : at + 640]
                client.sendall(block)
                sent += len(block)
                time.sleep(max(0.0, begun + sent / 32_000 - time.monotonic()))

    def close(self) -> None:
        """Cut off everybody."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
