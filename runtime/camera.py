"""A camera or video stream through OpenCV: one thread reads it, the newest frames wait in a short queue."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clcr_edge.errors import MissingPartError, SourceError
from clcr_edge.packets import VideoFrame
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import LatencyHistogram
from clcr_edge.runtime.video_devices import list_video_devices

_OPEN_MS = 5_000
_READ_MS = 2_000
_FIRST_FRAME_S = 12.0
_MAX_WAITING = 8
_STALE_S = 1.0
_RETRY_S = 1.0


def opencv() -> Any:
    """The cv2 module. Raises `MissingPartError` if it is not installed."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        raise MissingPartError(
            "camera: OpenCV is not installed; pip install 'clcr-edge[camera]' (on a Jetson: JetPack's own), or give --no-camera"
        ) from None


def _is_pipeline(source: int | str) -> bool:
    return isinstance(source, str) and " ! " in source


class Camera:
    """Opens at once and waits for the first frame; `SourceError` if none comes. A source lost later is looked for again.

    source: index, device path, URL, or a GStreamer pipeline that ends in appsink (OpenCV must have been built with it, as
    on a Jetson). A frame's `t_s` is the monotonic time at which OpenCV handed it over: container
    clocks of live streams run wrong (an MJPEG stream is taken for 25 fps). wake, notice, decoding: see `Microphone`.

    The thread always reads, because OpenCV queues what is not read and the picture would lag by seconds; frames that
    nobody took in time are dropped, oldest first, and counted.
    """

    def __init__(
        self,
        source: int | str,
        *,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self._cv2 = opencv()
        self._source = source
        self.name = f"camera {source}"
        self._wake = wake or threading.Event()
        self._notice = notice or (lambda _text: None)
        self._decoding = decoding or LatencyHistogram()
        self._frames: deque[VideoFrame] = deque()
        self._lock = threading.Lock()
        self._seq = 0
        self._read_s = 0.0
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._failure = "gave no frame"
        self.frames_dropped = 0
        # OpenCV's capture object lives and dies in this thread alone.
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        opened = self._ready.wait(_FIRST_FRAME_S)
        if not opened or not self._read_s:
            self._closed.set()
            what = self._failure if opened else "did not answer"
            raise SourceError(f"{self.name}: {what}; {self._remedy()}")

    def _remedy(self) -> str:
        if isinstance(self._source, str) and "://" in self._source:
            return "check that the stream is being served at this address, or give --no-camera"
        if _is_pipeline(self._source):
            info = self._cv2.getBuildInformation()
            if "NO" in next((line for line in info.splitlines() if "GStreamer:" in line), "NO"):
                return "this OpenCV was built without GStreamer; use one that has it (JetPack's), or give --no-camera"
            return "check the pipeline with gst-launch-1.0 (it must end in appsink), or give --no-camera"
        path = Path(self._source if isinstance(self._source, str) else f"/dev/video{self._source}")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            return f"no permission for {path}: add your user to its group (usually video), or give --no-camera"
        found = list_video_devices()
        names = ", ".join(f"{d.index} {d.name!r}" for d in found) or "none"
        return f"found {names}; plug one in or name another with --camera (see clcr-edge devices), or give --no-camera"

    def _open(self) -> Any:
        cv2 = self._cv2
        if isinstance(self._source, str) and "://" in self._source:
            # Without limits of our own a dead address blocks for 30 s.
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
            return cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, limits)
        source = self._source
        if isinstance(source, str):
            if _is_pipeline(source):
                return cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
            if not Path(source).exists():
                return None
            node = Path(source).resolve().name  # links such as /dev/v4l/by-id/... lead to a numbered node
            if node.startswith("video") and node[5:].isdigit():
                source = int(node[5:])
        elif sys.platform == "linux" and not Path(f"/dev/video{source}").exists():
            return None  # or OpenCV tries every backend, with a page of warnings
        capture = cv2.VideoCapture(source)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _run(self) -> None:
        lost = False
        while not self._closed.is_set():
            try:
                capture = self._open()
                if capture is None:
                    self._failure = "no such device"
                elif not capture.isOpened():
                    self._failure = "cannot be opened"
                else:
                    lost = self._read(capture, lost)
                    capture.release()
            except self._cv2.error:
                pass  # as good as closed
            first_try_failed = not self._ready.is_set()
            self._ready.set()
            if first_try_failed or self._closed.is_set():
                return
            if not lost:
                lost = True
                self._notice(f"{self.name} is gone; predictions go on without it while it is looked for")
            self._closed.wait(_RETRY_S)

    def _read(self, capture: Any, lost: bool) -> bool:
        """Read until the source fails; True if it was lost before and never came back."""
        while not self._closed.is_set():
            # In two calls, so that waiting is told from decoding (V4L2; FFmpeg decodes while it waits).
            ok = capture.grab()
            grabbed = time.monotonic()
            ok, image = capture.retrieve() if ok else (False, None)
            now = time.monotonic()
            if not ok or image is None:
                break  # a failed stream stays "opened" and fails for ever: only opening anew helps
            frame = VideoFrame(self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB), now, self._seq)
            self._decoding.add(time.monotonic() - grabbed)
            self._seq += 1
            with self._lock:
                if len(self._frames) == _MAX_WAITING:
                    self._frames.popleft()
                    self.frames_dropped += 1
                self._frames.append(frame)
            self._read_s = now
            self._ready.set()
            if lost:
                lost = False
                self._notice(f"{self.name} is back")
            self._wake.set()
        return lost

    @property
    def alive(self) -> bool:
        """A frame has arrived lately."""
        return time.monotonic() - self._read_s < _STALE_S

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return SourceState.LIVE if self.alive else SourceState.STALLED

    def take(self) -> list[VideoFrame]:
        """The frames that have arrived since the last call, oldest first."""
        with self._lock:
            frames = list(self._frames)
            self._frames.clear()
        return frames

    def close(self) -> None:
        """Stop reading. A driver that hangs is left to its daemon thread."""
        self._closed.set()
        self._thread.join(_READ_MS / 1e3 + 0.5)
