"""A microphone through sounddevice (PortAudio), as 16 kHz mono chunks on the monotonic clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, FloatArray
from clcr_edge.runtime.audio_clock import AudioClock
from clcr_edge.runtime.deadline import abandoned
from clcr_edge.runtime.host_clock import HostClock
from clcr_edge.runtime.mic_channel import MicChannel
from clcr_edge.runtime.portaudio import (
    InputDevice,
    behind_server,
    find_input,
    forget_exit_handler,
    guarded,
    sounddevice,
    takes_rate,
)
from clcr_edge.runtime.reopening import Reopening
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import LatencyHistogram
from clcr_edge.runtime.watched_source import WatchedSource

# A tick waits for the block that completes it, so short blocks make predictions younger. PortAudio keeps two blocks: a sound
# server holds what comes meanwhile, a card would overflow where callbacks are late by more.
_BLOCK_S, _SERVER_BLOCK_S = 0.010, 0.005
_MAX_WAITING_S = 5.0  # a caller that stops taking loses the oldest
_SAME_S = 1e-6  # stamps count samples, so that those without a break agree to rounding
_STALLED_S = 0.5  # without a callback
_GIVEN_UP_S = 10.0  # of a stall, after which the device is opened anew
_LOOK_S = 0.1
_FIRST_S = 12.0  # for the first opening, and for the end: each has a deadline of 5 s for every call
_OTHER_RATES_HZ = (48_000, 44_100, 32_000, 96_000, 8_000)  # of a device that takes neither ours nor its own default


class Microphone(WatchedSource):
    """Opens at once; `SourceError` or `MissingPartError` if it cannot. A device that goes away later, or stalls for 10 s,
    is opened again.

    device: index, name, part of a name, or None for the default. wake: set whenever audio has arrived.
    notice: called with one line when the device is lost or back. offset_s: added to every stamp, to calibrate a device
    whose driver misreports its latency. channel: the one of a microphone array that is listened to; None: the mean of all.
    decoding: counts how long raw media took to become packets.
    """

    def __init__(
        self,
        device: int | str | None = None,
        *,
        rate_hz: int = 16_000,
        wake: threading.Event | None = None,
        notice: Callable[[str], None] | None = None,
        offset_s: float = 0.0,
        channel: MicChannel | None = None,
        decoding: LatencyHistogram | None = None,
    ) -> None:
        self._wanted = device
        self._channel = channel
        self._rate_hz = rate_hz
        self._wake = wake or threading.Event()
        self._offset_s = offset_s
        self._decoding = decoding or LatencyHistogram()
        self._blocks: deque[tuple[FloatArray, float, float]] = deque(maxlen=round(_MAX_WAITING_S / _SERVER_BLOCK_S))
        self._lock = threading.Lock()  # the clock and the resampler belong to one opening; blocks of another would be wrong
        self._opening = 0
        self._device: InputDevice | None = None
        self._found = True  # whether the newest try could open it; if not, it may have come back as another device
        self.name = ""
        self._ended = threading.Event()
        self._monitor = SourceMonitor("microphone", stalled_s=_STALLED_S, notice=notice)
        self._loop = Reopening(self._run, self._monitor)
        error = self._loop.start(_FIRST_S)
        if isinstance(error, TimeoutError):
            raise SourceError("microphone: did not answer; check that its server or driver still runs", part="microphone")
        if error is not None:
            raise error

    # -- device ---------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        sd = sounddevice()
        anew, self._found = not self._found, False
        device = find_input(self._wanted, self._device, anew=anew)
        self.name = device.name
        self._monitor.name = f"microphone {device.name!r}"
        self._opening += 1
        opening = self._opening

        def opened() -> Any:
            channels, native_hz = self._format(sd, device)
            resampler = None
            if native_hz != self._rate_hz:
                import av  # tens of megabytes, which most microphones do without

                resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
            with self._lock:
                self.drops += len(self._blocks)
                self._blocks.clear()
                self._native_hz = native_hz
                self._clock = AudioClock(native_hz)
                self._resampler = resampler
                self._held = 0.0  # native samples inside the resampler
            self._ended.clear()
            self._host_clock = HostClock()

            def callback(*args: Any) -> None:
                if opening == self._opening:  # a stream that was given up may wake again
                    self._callback(*args)

            def finished() -> None:
                if opening == self._opening:
                    self._finished()

            names = [str(info["name"]) for info in sd.query_devices()]
            block_s = _SERVER_BLOCK_S if behind_server(device, names) else _BLOCK_S
            stream = sd.InputStream(
                device=device.index,
                samplerate=native_hz,
                blocksize=round(native_hz * block_s),  # 0 gives ragged blocks of 1 to 64 frames
                channels=channels,
                dtype="float32",
                latency="low",
                callback=callback,
                finished_callback=finished,
            )
            stream.start()
            if opening != self._opening:  # it took so long that nobody waits for it any more
                stream.close(ignore_errors=True)
            return stream

        try:
            self._stream = guarded(f"microphone {device.name!r}", opened)
        except sd.PortAudioError as e:
            reason = str(e).splitlines()[0]
            raise SourceError(
                f"microphone {device.name!r}: cannot be opened ({reason}); is another program using it?", part="microphone"
            ) from None
        except SourceError:
            self._opening += 1
            raise
        self._device, self._found = device, True
        self._monitor.opened()

    def _format(self, sd: Any, device: InputDevice) -> tuple[int, int]:
        counts: tuple[int, ...] = (1, min(2, device.channels), device.channels)
        if self._channel is not None:
            counts = (self._channel.count_on(device),)
        for rate_hz in (self._rate_hz, device.default_rate_hz, *_OTHER_RATES_HZ):
            for channels in counts:
                if takes_rate(sd, device.index, channels, rate_hz):
                    return channels, rate_hz
        wanted = "" if self._channel is None else f" with {counts[0]} channels"
        raise SourceError(
            f"microphone {device.name!r}: takes neither {self._rate_hz} Hz nor its own {device.default_rate_hz} Hz{wanted}; "
            "choose another (clcr-edge devices lists them)",
            part="microphone",
        )

    def _callback(self, data: FloatArray, _frames: int, times: Any, status: Any) -> None:
        if status.input_overflow:
            self._monitor.overflow()
        captured_s, arrival_s = self._host_clock.stamp(times.currentTime, times.inputBufferAdcTime)
        if self._channel is not None:
            mono = data[:, self._channel.index].copy()
        else:
            mono = data[:, 0].copy() if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
        if len(self._blocks) == self._blocks.maxlen:
            self.drops += 1
        self._blocks.append((mono, captured_s, arrival_s))
        self._monitor.arrived()
        self._wake.set()

    def _finished(self) -> None:
        self._ended.set()
        self._wake.set()

    def _run(self) -> None:
        """Open the device and wait until it goes away; raises to say why.

        A stall is left alone at first: its stream goes on by itself when it is over. One that lasts is given up.
        """
        if self._hangs():
            raise SourceError("an earlier call to its driver still hangs")  # another would hang as well
        self._open()
        self._loop.ready()
        stalled_s, reason = 0.0, "it ended"
        while not self._loop.closed.is_set() and not self._ended.wait(_LOOK_S):
            stalled_s = stalled_s + _LOOK_S if self._monitor.state is SourceState.STALLED else 0.0
            if stalled_s >= _GIVEN_UP_S:
                reason = f"nothing for {_GIVEN_UP_S:g} s"
                break
        self._opening += 1
        if not self._loop.closed.is_set():
            self._monitor.failed(reason)  # before what may take seconds
        self._shut()
        raise SourceError(reason)

    def _hangs(self) -> bool:
        return any(what == "PortAudio" or (self.name and repr(self.name) in what) for what in abandoned())

    def _shut(self) -> None:
        stream = self._stream
        try:
            guarded(f"closing microphone {self.name!r}", lambda: stream.close(ignore_errors=True))
        except Exception:  # it is given up either way
            forget_exit_handler()

    # -- samples --------------------------------------------------------------------------------------------------------

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the device's clock runs than the monotonic one; see `AudioClock`."""
        return self._clock.drift_ppm

    def take(self) -> list[AudioChunk]:
        """The audio that has arrived since the last call; contiguous chunks unless the device lost some.

        Blocks that follow one another without a break come as one chunk: everything behind costs by the chunk.
        """
        out: list[AudioChunk] = []
        with self._lock:
            while self._blocks:
                block, captured_s, arrival_s = self._blocks.popleft()
                begun = time.monotonic()
                stamp = self._clock.stamp(len(block), captured_s, arrival_s)
                if stamp is None:
                    self.drops += 1
                    continue
                t_s, adjust = stamp[0] + self._offset_s, stamp[1]
                if adjust > 0:
                    block = np.concatenate([block, block[-1:]])
                elif adjust < 0:
                    block = block[:-1]
                chunk = self._resampled(block, t_s)
                self._decoding.add(time.monotonic() - begun)
                if chunk is not None:
                    out.append(chunk)
        return [chunk for chunk in joined(out) if self._monitor.stamped(chunk)]

    def _resampled(self, block: FloatArray, t_s: float) -> AudioChunk | None:
        if self._resampler is None:
            return AudioChunk(block, self._rate_hz, t_s)
        import av

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
        self._loop.close(_FIRST_S)


def joined(chunks: list[AudioChunk]) -> list[AudioChunk]:
    """The same sound in as few chunks as have no break between them."""
    runs: list[list[AudioChunk]] = []
    for chunk in chunks:
        if runs and abs(chunk.t_s - runs[-1][-1].end_s) < _SAME_S:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return [AudioChunk(np.concatenate([c.samples for c in run]), run[0].rate_hz, run[0].t_s) for run in runs]
