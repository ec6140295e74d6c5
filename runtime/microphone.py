"""A microphone through sounddevice (PortAudio), as 16 kHz mono chunks on the monotonic clock."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import numpy as np

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, FloatArray
from clcr_edge.runtime.audio_clock import AudioClock
from clcr_edge.runtime.portaudio import InputDevice, find_input, forget_exit_handler, guarded, sounddevice, takes_rate
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import LatencyHistogram

_BLOCK_S = 0.020
_MAX_WAITING = 500  # blocks: 10 s; a caller that stops taking loses the oldest
_STALE_S = 0.5  # without a callback for so long, the microphone counts as away
_RETRY_S = 1.0


class Microphone:
    """Opens at once; `SourceError` or `MissingPartError` if it cannot. A device that goes away later is looked for again.

    device: index, name, part of a name, or None for the default. wake: set whenever audio has arrived.
    notice: called with one line when the device is lost or back. offset_s: added to every stamp, to calibrate a device
    whose driver misreports its latency. decoding: counts how long raw media took to become packets.
    """

    def __init__(
        self,
        device: int | str | None = None,
        *,
        rate_hz: int = 16_000,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        offset_s: float = 0.0,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self._wanted = device
        self._rate_hz = rate_hz
        self._wake = wake or threading.Event()
        self._notice = notice or (lambda _text: None)
        self._offset_s = offset_s
        self._decoding = decoding or LatencyHistogram()
        self._blocks: deque[tuple[FloatArray, float, float]] = deque(maxlen=_MAX_WAITING)
        self._called_s = -math.inf  # newest callback
        self._ended = False
        self._closed = threading.Event()
        self.overflows = 0
        self.chunks_lost = 0
        self._open()
        self._supervisor = threading.Thread(target=self._supervise, name="microphone", daemon=True)
        self._supervisor.start()

    # -- device ---------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        sd = sounddevice()
        device = find_input(self._wanted)
        self.name = device.name

        def opened() -> Any:
            channels, native_hz = self._format(sd, device)
            self._native_hz = native_hz
            self._clock = AudioClock(native_hz)
            self._resampler = None
            if native_hz != self._rate_hz:
                self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
            self._held = 0.0  # native samples inside the resampler
            self._ended = False
            self._clock_offset_s = math.inf
            stream = sd.InputStream(
                device=device.index,
                samplerate=native_hz,
                blocksize=round(native_hz * _BLOCK_S),  # 0 gives ragged blocks of 1 to 64 frames
                channels=channels,
                dtype="float32",
                latency="low",
                callback=self._callback,
                finished_callback=self._finished,
            )
            stream.start()
            return stream

        try:
            self._stream = guarded(f"microphone {device.name!r}", opened)
        except sd.PortAudioError as e:
            reason = str(e).splitlines()[0]
            raise SourceError(
                f"microphone {device.name!r}: cannot be opened ({reason}); is another program using it? or give --no-mic"
            ) from None
        self._called_s = time.monotonic()

    def _format(self, sd: Any, device: InputDevice) -> tuple[int, int]:
        for rate_hz in (self._rate_hz, device.default_rate_hz, 48_000, 44_100):
            for channels in (1, min(2, device.channels), device.channels):
                if takes_rate(sd, device.index, channels, rate_hz):
                    return channels, rate_hz
        raise SourceError(
            f"microphone {device.name!r}: takes neither {self._rate_hz} Hz nor its own {device.default_rate_hz} Hz; "
            "choose another with --mic"
        )

    def _callback(self, data: FloatArray, _frames: int, times: Any, status: Any) -> None:
        now = time.monotonic()
        if status.input_overflow:
            self.overflows += 1
        # PortAudio's clock is not the monotonic one everywhere. The smallest difference seen is the truest: the others
        # had to wait for the interpreter. It may leak upward by 20 us a block, so that a slewed wall clock is followed.
        offset_s = now - times.currentTime
        if abs(offset_s - self._clock_offset_s) > 1.0:
            self._clock_offset_s = offset_s
        self._clock_offset_s = min(self._clock_offset_s + 2e-5, offset_s)
        arrival_s = times.currentTime + self._clock_offset_s
        adc_s = times.inputBufferAdcTime
        captured_s = adc_s + self._clock_offset_s if adc_s > 0 else arrival_s
        mono = data[:, 0].copy() if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
        if len(self._blocks) == _MAX_WAITING:
            self.chunks_lost += 1
        self._blocks.append((mono, captured_s, arrival_s))
        self._called_s = now
        self._wake.set()

    def _finished(self) -> None:
        self._ended = True
        self._wake.set()

    def _supervise(self) -> None:
        """Reopen a device that went away. A mere stall is left alone: its stream goes on by itself when it is over."""
        while not self._closed.wait(0.1):
            if not self._ended:
                continue
            self._notice(f"microphone {self.name!r} is gone; predictions go on without it while it is looked for")
            self._shut()
            while not self._closed.wait(_RETRY_S):
                try:
                    self._open()
                except Exception:  # whatever it was: the next try may find the device again
                    continue
                self._notice(f"microphone {self.name!r} is back")
                break

    def _shut(self) -> None:
        stream = self._stream
        try:
            guarded(f"closing microphone {self.name!r}", lambda: stream.close(ignore_errors=True))
        except Exception:  # it is given up either way
            forget_exit_handler()

    # -- samples --------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Audio has arrived lately."""
        return not self._ended and time.monotonic() - self._called_s < _STALE_S

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return SourceState.LIVE if self.alive else SourceState.STALLED

    def take(self) -> list[AudioChunk]:
        """The audio that has arrived since the last call; contiguous chunks unless the device lost some."""
        out = []
        while self._blocks:
            block, captured_s, arrival_s = self._blocks.popleft()
            begun = time.monotonic()
            stamp = self._clock.stamp(len(block), captured_s + self._offset_s, arrival_s)
            if stamp is None:
                self.chunks_lost += 1
                continue
            t_s, adjust = stamp
            if adjust > 0:
                block = np.concatenate([block, block[-1:]])
            elif adjust < 0:
                block = block[:-1]
            chunk = self._resampled(block, t_s)
            self._decoding.add(time.monotonic() - begun)
            if chunk is not None:
                out.append(chunk)
        return out

    def _resampled(self, block: FloatArray, t_s: float) -> AudioChunk | None:
        if self._resampler is None:
            return AudioChunk(block, self._rate_hz, t_s)
        frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate = self._native_hz
        out = [f.to_ndarray().reshape(-1) for f in self._resampler.resample(frame)]
        samples: FloatArray = np.concatenate(out).astype(np.float32, copy=False) if out else np.empty(0, np.float32)
        # The resampler holds some samples back: what comes out now began that much before this block.
        start_s = t_s - self._held / self._native_hz
        self._held += len(block) - len(samples) * self._native_hz / self._rate_hz
        return AudioChunk(samples, self._rate_hz, start_s) if len(samples) else None

    def close(self) -> None:
        """Stop recording. Returns within seconds even where PortAudio hangs."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._supervisor.join(6.0)
        self._shut()
