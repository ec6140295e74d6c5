"""The audio of a network stream (RTSP, HTTP, UDP) through PyAV, as 16 kHz mono chunks on the monotonic clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import numpy as np

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk
from clcr_edge.runtime.audio_clock import AudioClock
from clcr_edge.runtime.reopening import Reopening
from clcr_edge.runtime.shown_address import shown_address
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.stages import LatencyHistogram
from clcr_edge.runtime.watched_source import WatchedSource

_TIMEOUT_S = (5.0, 2.0)  # open, read
_OPEN_S = 12.0
_STALLED_S = 0.5
_MOST_WAITING_S = 10.0  # counted in samples: a packet may hold a few milliseconds, or an eighth of a second
_SLACK_S = 0.02  # the arrival of packets is all there is to go by


class NetworkAudio(WatchedSource):
    """Opens at once and waits for the first audio; `SourceError` if none comes. A stream lost later is opened again.

    Samples are stamped by their arrival: they are as late as the network makes them. wake, notice, offset_s, decoding: see
    `Microphone`.
    """

    def __init__(
        self,
        url: str,
        *,
        rate_hz: int = 16_000,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        offset_s: float = 0.0,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self._offset_s = offset_s
        self._clock: AudioClock | None = None
        self.name = f"audio of {shown_address(url)}"
        self._url = url
        self._rate_hz = rate_hz
        self._wake = wake or threading.Event()
        self._decoding = decoding or LatencyHistogram()
        self._chunks: deque[AudioChunk] = deque()
        self._waiting = 0  # samples in them
        self._lock = threading.Lock()
        self._monitor = SourceMonitor(self.name, stalled_s=_STALLED_S, notice=notice)
        self._loop = Reopening(self._run, self._monitor)
        error = self._loop.start(_OPEN_S)
        if error is not None:
            raise SourceError(
                f"{self.name}: gave no audio ({error}); check that it is being served at this address",
                part="microphone",
            )

    def _run(self) -> None:
        """Open the stream and read it until it fails; raises to say why."""
        try:
            with av.open(self._url, timeout=_TIMEOUT_S) as container:
                if not container.streams.audio:
                    raise SourceError("it has no audio stream")
                self._monitor.opened()
                self._read(container)
        except av.error.FFmpegError as e:
            raise SourceError(str(getattr(e, "strerror", None) or e)) from None

    def _read(self, container: Any) -> None:
        self._clock = clock = AudioClock(self._rate_hz, slack_s=_SLACK_S, backlog_first=True)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        for frame in container.decode(audio=0):
            if self._loop.closed.is_set():
                break
            now = time.monotonic()
            frame.pts = None
            parts = [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
            if not parts:
                continue
            samples = np.concatenate(parts).astype(np.float32, copy=False)
            stamp = clock.stamp(len(samples), now, now)
            if stamp is None:
                self.drops += 1
                continue
            t_s, adjust = stamp[0] + self._offset_s, stamp[1]
            if adjust:
                samples = np.append(samples, samples[-1]) if adjust > 0 else samples[:-1]
            chunk = AudioChunk(samples, self._rate_hz, t_s)
            self._decoding.add(time.monotonic() - now)
            self._monitor.arrived()
            if not self._monitor.stamped(chunk):
                continue
            with self._lock:
                self._chunks.append(chunk)
                self._waiting += len(samples)
                while self._waiting > _MOST_WAITING_S * self._rate_hz:
                    self._waiting -= len(self._chunks.popleft().samples)
                    self.drops += 1
            self._loop.ready()
            self._wake.set()

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the sender's clock runs than the monotonic one; see `AudioClock`."""
        return None if self._clock is None else self._clock.drift_ppm

    def take(self) -> list[AudioChunk]:
        """The audio that has arrived since the last call."""
        with self._lock:
            out = list(self._chunks)
            self._chunks.clear()
            self._waiting = 0
        return out

    def close(self) -> None:
        """Stop listening; a read under way ends by its own time limit."""
        self._loop.close(_TIMEOUT_S[1] + 0.5)
