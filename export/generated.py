"""A camera and a microphone that need no device: moving pictures and the shipped synthetic speech, for measurements.

They deliver as devices do, in threads of their own and stamped on the monotonic clock, so that all after the source is the
live path. What a driver and a decoder add is not in them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import deque

import numpy as np

from clcr_edge.errors import MissingPartError
from clcr_edge.packets import AudioChunk, ByteArray, FloatArray, VideoFrame
from clcr_edge.runtime.assets import shipped
from clcr_edge.runtime.camera import opencv
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.source_state import SourceState

RATE_HZ = 16_000
_PICTURES = 4
_WORDS, _PAUSE_S = 12, 0.6
_BLOCK_S = 0.010  # as `Microphone` asks for
_MAX_WAITING = 500


class GeneratedMedia:
    """Pictures uint8 `[480, 640, 3]` that move, and speech float32 at 16 kHz that goes round."""

    def __init__(self) -> None:
        with contextlib.suppress(MissingPartError):
            opencv()  # as a camera's frames find it loaded: it makes their luma
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (30, 40, 3), np.uint8)
        picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
        self._pictures: list[ByteArray] = [np.ascontiguousarray(np.roll(picture, 40 * k, axis=1)) for k in range(_PICTURES)]
        self._speech = _speech()

    def frame(self, seq: int, t_s: float) -> VideoFrame:
        """Frame `seq`, captured at `t_s`."""
        return VideoFrame(self._pictures[seq % _PICTURES], t_s, seq)

    def audio(self, first: int, count: int, t_s: float) -> AudioChunk:
        """Samples `first`, `first + 1`, ... of the endless speech, captured from `t_s` on."""
        at = first % len(self._speech)
        samples = self._speech[at : at + count]
        if len(samples) < count:
            samples = np.concatenate([samples, self._speech[: count - len(samples)]])
        return AudioChunk(samples, RATE_HZ, t_s)


def _speech() -> FloatArray:
    """Some words of the shipped check speech with pauses between them; noise where the assets are not there."""
    folder = shipped("synthetic")
    if folder is None:
        return (0.05 * np.random.default_rng(0).standard_normal(10 * RATE_HZ)).astype(np.float32)
    from clcr_edge.runtime.media_file import MediaFile

    with np.load(folder / "check.npz", allow_pickle=False) as table:
        starts, lengths = table["starts"][:_WORDS], table["lengths"][:_WORDS]
    end = int((starts + lengths).max())
    file = MediaFile(folder / "check.opus", video=False, audio=True)
    assert file.audio is not None
    samples = np.concatenate([chunk.samples for chunk in file.audio.until(end / RATE_HZ)])
    file.close()
    pause = np.zeros(int(_PAUSE_S * RATE_HZ), np.float32)
    parts = [part for a, n in zip(starts, lengths, strict=True) for part in (samples[a : a + n], pause)]
    return np.concatenate(parts)


class _Source(ABC):
    """A thread that makes a packet every `period_s`, and a queue that `take` empties."""

    state = SourceState.LIVE
    health = SourceHealth(SourceState.LIVE, 0.0)
    alive = True

    def __init__(self, name: str, period_s: float, wake: threading.Event) -> None:
        self._period_s = period_s
        self._wake = wake
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        begun, count = time.monotonic(), 0
        while not self._closed.wait(max(0.0, begun + (count + 1) * self._period_s - time.monotonic())):
            self._make(count, begun + (count + 1) * self._period_s)
            count += 1
            self._wake.set()

    @abstractmethod
    def _make(self, count: int, due_s: float) -> None:
        """Put packet `count` into the queue; its last sample is of `due_s`."""

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(2.0)


class GeneratedCamera(_Source):
    """30 frames a second; only the newest eight wait."""

    def __init__(self, media: GeneratedMedia, wake: threading.Event, fps: float = 30.0) -> None:
        super().__init__("generated camera", 1.0 / fps, wake)
        self._media = media
        self._frames: deque[VideoFrame] = deque(maxlen=8)
        self.frames_dropped = 0
        self._thread.start()

    def _make(self, count: int, due_s: float) -> None:
        self.frames_dropped += len(self._frames) == self._frames.maxlen
        self._frames.append(self._media.frame(count, due_s))

    def take(self) -> list[VideoFrame]:
        """The frames since the last call."""
        out = []
        while self._frames:
            out.append(self._frames.popleft())
        return out


class GeneratedMicrophone(_Source):
    """Blocks of 10 ms, each there when its last sample is."""

    def __init__(self, media: GeneratedMedia, wake: threading.Event) -> None:
        super().__init__("generated microphone", _BLOCK_S, wake)
        self._media = media
        self._chunks: deque[AudioChunk] = deque(maxlen=_MAX_WAITING)
        self._thread.start()

    def _make(self, count: int, due_s: float) -> None:
        block = round(_BLOCK_S * RATE_HZ)
        self._chunks.append(self._media.audio(count * block, block, due_s - _BLOCK_S))

    def take(self) -> list[AudioChunk]:
        """The audio since the last call."""
        out = []
        while self._chunks:
            out.append(self._chunks.popleft())
        return out
