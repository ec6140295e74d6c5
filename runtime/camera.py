"""A camera or video stream through OpenCV: one thread reads it, the newest frames wait in a short queue."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from clcr_edge.errors import MissingPartError, SourceError
from clcr_edge.packets import VideoFrame
from clcr_edge.runtime.frame_watch import FrameWatch
from clcr_edge.runtime.gstreamer import check_machine, is_pipeline, pipeline_of
from clcr_edge.runtime.reopening import Reopening
from clcr_edge.runtime.shown_address import shown_address
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.stages import LatencyHistogram
from clcr_edge.runtime.video_devices import find_video_device, list_video_devices
from clcr_edge.runtime.watched_source import WatchedSource

_OPEN_MS = 5_000
_READ_MS = 2_000
_FIRST_FRAME_S = 12.0
_MAX_WAITING = 8
_STALLED_S = 1.0
_PAUSES = 5.0  # usual intervals of a slow camera that make a stall
_PATIENCE_S = 0.5  # with frames that cannot be decoded
_FAILED_READ_S = 0.01


def opencv() -> Any:
    """The cv2 module. Raises `MissingPartError` if it is not installed, or does not load."""
    try:
        if "cv2" in sys.modules:
            return importlib.import_module("cv2")
        with redirect_stderr(io.StringIO()):  # a page from NumPy about an OpenCV that was compiled for another one
            return importlib.import_module("cv2")
    except ModuleNotFoundError as e:
        if e.name == "cv2":
            raise MissingPartError(
                "camera: OpenCV is not installed; pip install 'clcr-edge[camera]' (on a Jetson: JetPack's own)", part="camera"
            ) from None
        raise _unloadable(e) from None
    except ImportError as e:
        raise _unloadable(e) from None


def _unloadable(error: ImportError) -> MissingPartError:
    """Installed all the same: to install a wheel beside it would hide JetPack's own, and what is wrong with it too."""
    said = next(iter(str(error).splitlines()), "")
    remedy = "clcr-edge doctor looks further"
    if "multiarray" in said or "numpy" in said.casefold():
        remedy = "it was compiled for NumPy 1: pip install 'numpy>=1.26,<2'"
    elif "libGL" in said:
        remedy = "apt install libgl1, or pip install opencv-python-headless in place of opencv-python"
    return MissingPartError(f"camera: OpenCV does not load ({said}); {remedy}", part="camera")


class Camera(WatchedSource):
    """Opens at once and waits for the first frame; `SourceError` if none comes. A source lost later is looked for again.

    source: index, device path, (part of a) name, URL, or what `gstreamer.pipeline_of` takes (`csi://0`, `gst:PIPELINE`). A
    frame's `t_s` is the monotonic time at which OpenCV handed it over, less latency_s, the seconds from the light to that
    moment: container clocks of live streams run wrong (an MJPEG stream is taken for 25 fps). wake, notice, decoding: see
    `Microphone`.

    The thread always reads, because OpenCV queues what is not read and the picture would lag by seconds; frames that
    nobody took in time are dropped, oldest first, and counted.
    """

    def __init__(
        self,
        source: int | str,
        *,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        latency_s: float = 0.0,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self._pipeline = pipeline_of(str(source)) if is_pipeline(source) else None
        self._latency_s = latency_s
        check_machine(str(source))
        self._cv2 = opencv()
        self._source = source
        self.name = f"camera {shown_address(str(source))}"
        self._wake = wake or threading.Event()
        self._monitor = SourceMonitor(self.name, stalled_s=_STALLED_S, notice=notice)
        self._watch = FrameWatch()
        self._decoding = decoding or LatencyHistogram()
        self._frames: deque[VideoFrame] = deque()
        self._lock = threading.Lock()
        self._seq = 0
        # OpenCV's capture object lives and dies in this thread alone.
        self._loop = Reopening(self._run, self._monitor)
        error = self._loop.start(_FIRST_FRAME_S)
        if error is not None:
            what = str(error) if isinstance(error, (SourceError, TimeoutError)) else "cannot be opened"
            raise SourceError(f"{self.name}: {what}; {self._remedy()}", part="camera")

    def _remedy(self) -> str:
        if self._pipeline is not None:
            info = self._cv2.getBuildInformation()
            if "NO" in next((line for line in info.splitlines() if "GStreamer:" in line), "NO"):
                return "this OpenCV was built without GStreamer; use one that has it (JetPack's, or Debian's python3-opencv)"
            return f"try it with: gst-launch-1.0 '{shown_address(self._pipeline).split(' ! appsink')[0]} ! fakesink'"
        if isinstance(self._source, str) and "://" in self._source:
            return "check that the stream is being served at this address"
        found = list_video_devices()
        named = next((d.path for d in found if d.name == self._source), self._source)
        path = Path(named if isinstance(named, str) else f"/dev/video{named}")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            return f"no permission for {path}: add your user to its group (usually video)"
        names = ", ".join(f"{d.index} {d.name!r}" for d in found) or "none"
        return f"found {names}; plug one in or name another (clcr-edge devices lists them)"

    def _open(self) -> Any:
        cv2 = self._cv2
        if self._pipeline is not None:
            return cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        if isinstance(self._source, str) and "://" in self._source:
            # Without limits of our own a dead address blocks for 30 s.
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
            return cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, limits)
        source = self._source
        if isinstance(source, str) and not source.startswith("/") and not Path(source).exists():
            source = find_video_device(source).index  # at each opening: plugged in again, it may have another index
        elif isinstance(source, str):
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
        """Open the source and read it until it fails; raises to say why."""
        capture = self._open()
        if capture is None:
            raise SourceError("no such device")
        try:
            if not capture.isOpened():
                raise SourceError("cannot be opened")
            self._monitor.opened()
            self._watch.reset()
            self._read(capture)
        finally:
            capture.release()

    def _read(self, capture: Any) -> None:
        good_s, failed = time.monotonic(), 0
        while not self._loop.closed.is_set():
            # In two calls, so that waiting is told from decoding (V4L2; FFmpeg decodes while it waits).
            ok = capture.grab()
            grabbed = time.monotonic()
            ok, image = capture.retrieve() if ok else (False, None)
            now = time.monotonic()
            if not ok or image is None:
                # A frame that cannot be decoded fails once; a stream that has ended fails for ever, and at once.
                failed += 1
                if now - good_s > _PATIENCE_S:
                    raise SourceError("gives no frame")
                self._loop.closed.wait(_FAILED_READ_S)
                continue
            frame = VideoFrame(self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB), now - self._latency_s, self._seq)
            self._decoding.add(time.monotonic() - grabbed)
            self._seq += 1
            with self._lock:
                if len(self._frames) == _MAX_WAITING:
                    self._frames.popleft()
                    self.drops += 1
                self._frames.append(frame)
            self._judge(now, image, failed)
            good_s, failed = now, 0
            self._loop.ready()
            self._wake.set()

    def _judge(self, now: float, image: Any, failed: int) -> None:
        monitor, watch = self._monitor, self._watch
        monitor.arrived()
        watch.see(now, image)
        if failed:
            monitor.damaged("frames that cannot be decoded", failed)
        if watch.pause_s is not None:
            monitor.gap(f"a pause of {watch.pause_s:.2f} s")
        for flaw in (watch.slow, watch.frozen):
            if flaw is not None:
                monitor.flawed(flaw)
        if watch.usual_hz is not None:
            monitor.slower(max(_STALLED_S, _PAUSES / watch.usual_hz))

    @property
    def frames_dropped(self) -> int:
        """Frames that nobody took in time; what a `FrameSource` calls its `drops`."""
        return self.drops

    def take(self) -> list[VideoFrame]:
        """The frames that have arrived since the last call, oldest first."""
        with self._lock:
            frames = list(self._frames)
            self._frames.clear()
        return frames

    def close(self) -> None:
        """Stop reading. A driver that hangs is left to its daemon thread."""
        self._loop.close(_READ_MS / 1e3 + 0.5)
