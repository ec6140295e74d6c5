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
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import LatencyHistogram

_TIMEOUT_S = (5.0, 2.0)  # open, read
_OPEN_S = 12.0
_STALE_S = 0.5
_RETRY_S = 1.0
_MAX_WAITING = 500
_SLACK_S = 0.02  # the arrival of packets is all there is to go by


class NetworkAudio:
    """Opens at once and waits for the first audio; `SourceError` if none comes. A stream lost later is opened again.

    Samples are stamped by their arrival: they are as late as the network makes them. wake, notice, decoding: see `Microphone`.
    """

    def __init__(
        self,
        url: str,
        *,
        rate_hz: int = 16_000,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self.name = f"audio of {url}"
        self._url = url
        self._rate_hz = rate_hz
        self._wake = wake or threading.Event()
        self._notice = notice or (lambda _text: None)
        self._decoding = decoding or LatencyHistogram()
        self._chunks: deque[AudioChunk] = deque(maxlen=_MAX_WAITING)
        self._arrived_s = 0.0
        self._reason = "no answer"
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        self._ready.wait(_OPEN_S)
        if not self._arrived_s:
            self._closed.set()
            raise SourceError(
                f"{self.name}: gave no audio ({self._reason}); check that it is being served at this address, or give --no-mic"
            )

    def _run(self) -> None:
        lost = False
        while not self._closed.is_set():
            try:
                with av.open(self._url, timeout=_TIMEOUT_S) as container:
                    if not container.streams.audio:
                        self._reason = "it has no audio stream"
                    else:
                        lost = self._read(container, lost)
            except (av.error.FFmpegError, OSError, ValueError) as e:
                self._reason = str(getattr(e, "strerror", None) or e)
            first_try_failed = not self._ready.is_set()
            self._ready.set()
            if first_try_failed or self._closed.is_set():
                return
            if not lost:
                lost = True
                self._notice(f"{self.name} is gone; predictions go on without it while it is looked for")
            self._closed.wait(_RETRY_S)

    def _read(self, container: Any, lost: bool) -> bool:
        clock = AudioClock(self._rate_hz, slack_s=_SLACK_S, backlog_first=True)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        for frame in container.decode(audio=0):
            if self._closed.is_set():
                break
            now = time.monotonic()
            frame.pts = None
            parts = [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
            if not parts:
                continue
            samples = np.concatenate(parts).astype(np.float32, copy=False)
            stamp = clock.stamp(len(samples), now, now)
            if stamp is None:
                continue
            t_s, adjust = stamp
            if adjust:
                samples = np.append(samples, samples[-1]) if adjust > 0 else samples[:-1]
            self._chunks.append(AudioChunk(samples, self._rate_hz, t_s))
            self._decoding.add(time.monotonic() - now)
            self._arrived_s = now
            self._ready.set()
            if lost:
                lost = False
                self._notice(f"{self.name} is back")
            self._wake.set()
        return lost

    @property
    def alive(self) -> bool:
        """Audio has arrived lately."""
        return time.monotonic() - self._arrived_s < _STALE_S

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return SourceState.LIVE if self.alive else SourceState.STALLED

    def take(self) -> list[AudioChunk]:
        """The audio that has arrived since the last call."""
        out = []
        while self._chunks:
            out.append(self._chunks.popleft())
        return out

    def close(self) -> None:
        """Stop listening; a read under way ends by its own time limit."""
        self._closed.set()
        self._thread.join(_TIMEOUT_S[1] + 0.5)
