"""A media file (mp4, mpg, avi, wav, flac, mp3, ...) as frames and 16 kHz mono audio on one clock, through PyAV.

The file is demuxed once. Packets wait compressed, per stream, until their time is asked for, so a badly interleaved
file costs its own size in memory and never that of its decoded frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, ByteArray, FloatArray, VideoFrame
from clcr_edge.runtime.program_stream import is_cut

# Where the header says how long a stream is, so that a file cut off in the middle can be told from a short one.
_LENGTH_IN_HEADER = frozenset({"mov", "mp4", "wav", "flac", "avi"})
_SHORT_BY_S = 0.5
# Containers round timestamps (Matroska: to 1 ms; some muxers worse); only a larger step is a hole in the audio.
_GAP_S = 0.03
_MAX_BAD_PACKETS = 200
_HELD = {"video": "picture", "audio": "sound"}


class MediaFile:
    """One open file. Time 0 is the container's start; streams that begin later keep their offset.

    video, audio: which modalities are wanted; `SourceError` if the file has no such stream, is not a media file, or
    does not exist. `problem` says after reading what was wrong with it (cut off, undecodable), None if nothing was.
    """

    def __init__(self, path: Path, *, video: bool, audio: bool, sample_rate_hz: int = 16_000) -> None:
        self.path = path
        if not path.exists():
            raise SourceError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise SourceError(f"{path}: not a regular file; give a media file (mp4, mpg, avi, wav, flac, mp3)")
        try:
            # A playlist could name network addresses: a file given as a file reads files only. (As `options`, which also go
            # to the streams, this crashes PyAV before 17 on MPEG program streams.)
            container = av.open(f"file:{path}", container_options={"protocol_whitelist": "file,crypto,data"})
        except (av.error.FFmpegError, OSError, ValueError) as e:
            raise SourceError(f"{path}: cannot be read as a media file ({_reason(e)}); is it complete?") from None
        self._demuxer = _Demuxer(container)
        try:
            self.video = _VideoTrack(self._demuxer, self._pick("video")) if video else None
            self.audio = _AudioTrack(self._demuxer, self._pick("audio"), sample_rate_hz) if audio else None
        except SourceError:
            self._demuxer.close()
            raise

    def _pick(self, kind: Literal["video", "audio"]) -> Any:
        streams = self._demuxer.container.streams
        stream: Any = streams.best(kind)
        if stream is None:
            has = ", ".join(sorted({s.type for s in streams})) or "no stream"
            part = "camera" if kind == "video" else "microphone"
            raise SourceError(f"{self.path}: holds no {kind} ({has} only); name another file", part=part)
        if stream.codec_context is None:
            raise SourceError(f"{self.path}: its {kind} has a codec that is not known here; convert the file first")
        return stream

    def has(self, kind: Literal["video", "audio"]) -> bool:
        """Whether the file holds such a stream, asked for or not."""
        stream: Any = self._demuxer.container.streams.best(kind)
        return stream is not None and stream.codec_context is not None

    @property
    def problem(self) -> str | None:
        """One line about what was wrong with the part read so far, or None."""
        if self._demuxer.broken is not None:
            return f"{self.path}: {self._demuxer.broken}"
        tracks = [t for t in (self.video, self.audio) if t is not None]
        if all(t.exhausted and t.is_empty for t in tracks):
            return f"{self.path}: holds no {' and no '.join(_HELD[t.stream.type] for t in tracks)}; is it complete?"
        for track in (self.video, self.audio):
            if track is not None and track.exhausted and track.is_short:
                return (
                    f"{self.path}: cut off: its {track.stream.type} ends at {track.end_s:.2f} s of "
                    f"{track.declared_s:.2f} s; what was there has been used"
                )
        if "mpeg" in self._demuxer.format_names and all(t.exhausted for t in tracks) and is_cut(self.path):
            return f"{self.path}: cut off in the middle of a packet; what was there has been used"
        if self._demuxer.bad_packets:
            return f"{self.path}: {self._demuxer.bad_packets} damaged packets were left out; the rest has been used"
        return None

    def close(self) -> None:
        """Close the file; reading afterwards gives nothing."""
        self._demuxer.close()


class _Demuxer:
    """Hands each stream its compressed packets. It knows the tracks' queues and not the tracks, so that nothing here is a
    cycle and a file that is let go is freed at once."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.bad_packets = 0
        self.broken: str | None = None
        self.format_names = frozenset(container.format.name.split(","))
        self._origin_s = (container.start_time or 0) / 1e6
        self._queues: dict[int, deque[Any]] = {}
        self._packets: Iterator[Any] | None = None
        self._ended = False

    def queue(self, stream: Any) -> deque[Any]:
        """The packets of a stream, from now on. Every stream must be asked for before the first `fetch`."""
        return self._queues.setdefault(stream.index, deque())

    def media_time(self, time_s: float) -> float:
        """Container time -> seconds since the file's start."""
        return time_s - self._origin_s

    def fetch(self) -> bool:
        """Demux one more packet into its queue; False at the end of the file."""
        if self._ended:
            return False
        if self._packets is None:
            self._packets = self.container.demux([s for s in self.container.streams if s.index in self._queues])
        assert self._packets is not None
        try:
            packet = next(self._packets)
        except StopIteration:
            self._ended = True
            return False
        except (av.error.FFmpegError, OSError) as e:
            self.broken = f"broken ({_reason(e)}); what could be read has been used"
            self._ended = True
            return False
        if packet.dts is not None or packet.size:  # the rest are demux()'s own flush packets; tracks flush themselves
            self._queues[packet.stream.index].append(packet)
        return True

    def count_bad_packet(self, reason: BaseException) -> None:
        """A packet could not be decoded. Some damage is survivable; a file of nothing else is given up."""
        self.bad_packets += 1
        if self.bad_packets >= _MAX_BAD_PACKETS:
            self.broken = f"broken ({_reason(reason)}, {self.bad_packets} packets); what could be read has been used"
            self._ended = True
            for queue in self._queues.values():
                queue.clear()

    def close(self) -> None:
        """Close the container."""
        self._ended = True
        self._packets = None
        for queue in self._queues.values():
            queue.clear()
        self.container.close()


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if str(text) else type(error).__name__


class _Track:
    """One stream of the file: compressed packets waiting, and how far it has been decoded."""

    def __init__(self, demuxer: _Demuxer, stream: Any) -> None:
        self._demuxer = demuxer
        self.stream = stream
        self._packets = demuxer.queue(stream)
        self.exhausted = False
        self.end_s = 0.0
        duration = stream.duration
        known = duration is not None and bool(demuxer.format_names & _LENGTH_IN_HEADER)
        self.declared_s = float(duration * stream.time_base) if known else 0.0
        self._first_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing has been decoded so far."""
        return self._first_s is None

    @property
    def is_short(self) -> bool:
        """Less was there than the header promises."""
        return self.end_s - (self._first_s or 0.0) < self.declared_s - _SHORT_BY_S

    def decoded(self) -> list[Any] | None:
        """Frames of the next packet (may be none); None when there is nothing more."""
        if self.exhausted:
            return None
        while not self._packets:
            if not self._demuxer.fetch():
                self.exhausted = True
                return self._flushed()
        packet = self._packets.popleft()
        try:
            return list(self.stream.decode(packet))
        except (av.error.FFmpegError, ValueError) as e:
            self._demuxer.count_bad_packet(e)
            return []

    def _flushed(self) -> list[Any]:
        try:
            return list(self.stream.decode(None))
        except (av.error.FFmpegError, ValueError):
            return []

    def seconds(self, pts: int | None, otherwise_s: float) -> float:
        """Timestamp in the stream's units -> seconds since the file's start."""
        # Not frame.time: flushed frames have lost their time base.
        return otherwise_s if pts is None else self._demuxer.media_time(float(pts * self.stream.time_base))

    def started(self, time_s: float) -> None:
        """Note where the stream begins."""
        if self._first_s is None:
            self._first_s = time_s


class _VideoTrack(_Track):
    """Decoded frames in presentation order."""

    def __init__(self, demuxer: _Demuxer, stream: Any) -> None:
        super().__init__(demuxer, stream)
        stream.thread_type = "AUTO"
        self._waiting: deque[VideoFrame] = deque()
        self._seq = 0
        self._last_s = -np.inf

    def until(self, end_s: float) -> list[VideoFrame]:
        """The frames with `t_s < end_s` that were not handed out before."""
        while not self._waiting or self._waiting[-1].t_s < end_s:
            frames = self.decoded()
            if frames is None:
                break
            for frame in frames:
                self._take(frame)
        out = []
        while self._waiting and self._waiting[0].t_s < end_s:
            out.append(self._waiting.popleft())
        return out

    def _take(self, frame: av.VideoFrame) -> None:
        rate = self.stream.average_rate
        ticks = getattr(frame, "duration", 0)  # PyAV has it from 15 on
        length_s = float(ticks * self.stream.time_base) if ticks else 0.0
        length_s = length_s or (float(1 / rate) if rate else 0.04)
        t_s = self.seconds(frame.pts, self.end_s)
        if t_s <= self._last_s:
            return  # damaged files repeat or rewind timestamps; the newer picture has no place of its own
        self.started(t_s)
        self._last_s = t_s
        self.end_s = t_s + length_s
        image: ByteArray = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        turns = int(getattr(frame, "rotation", 0) or 0) // 90 % 4
        if turns:  # phones store upright pictures lying down
            image = np.ascontiguousarray(np.rot90(image, turns))
        self._waiting.append(VideoFrame(image, t_s, self._seq))
        self._seq += 1


class _AudioTrack(_Track):
    """Decoded audio, resampled, on the sample grid of time 0."""

    def __init__(self, demuxer: _Demuxer, stream: Any, rate_hz: int) -> None:
        super().__init__(demuxer, stream)
        self._rate_hz = rate_hz
        self._blocks: deque[tuple[int, FloatArray]] = deque()  # (index of first sample, samples)
        self._next = 0  # index after the last sample taken in
        self._input_s: float | None = None  # time at which the next decoded frame should begin
        self._resampler: av.AudioResampler | None = None
        self._skip = 0  # samples yet to be dropped: before time 0, or heard already

    def until(self, end_s: float) -> list[AudioChunk]:
        """The samples before `end_s` that were not handed out before: one chunk per unbroken run."""
        end = round(end_s * self._rate_hz)
        while self._next < end:
            frames = self.decoded()
            if frames is None:
                break
            for frame in frames:
                self._take(frame)
            if self.exhausted:
                self._flush()
        out: list[AudioChunk] = []
        run: list[FloatArray] = []
        run_start = 0
        while self._blocks and self._blocks[0][0] < end:
            start, samples = self._blocks.popleft()
            if start + len(samples) > end:
                self._blocks.appendleft((end, samples[end - start :]))
                samples = samples[: end - start]
            if run and start != run_start + sum(map(len, run)):
                out.append(self._chunk(run_start, run))
                run = []
            if not run:
                run_start = start
            run.append(samples)
        if run:
            out.append(self._chunk(run_start, run))
        return out

    def _chunk(self, start: int, run: list[FloatArray]) -> AudioChunk:
        return AudioChunk(np.concatenate(run), self._rate_hz, start / self._rate_hz)

    def _take(self, frame: av.AudioFrame) -> None:
        t_s = self.seconds(frame.pts, self._input_s or 0.0)
        if self._input_s is None or abs(t_s - self._input_s) > _GAP_S:
            self._flush()
            self._input_s = t_s
            self._next = max(self._next, round(t_s * self._rate_hz))
            self._skip = max(0, self._next - round(t_s * self._rate_hz))
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        self.started(t_s)
        self._input_s += frame.samples / frame.sample_rate
        assert self._resampler is not None
        frame.pts = None  # the resampler would act on rounded timestamps; time is kept here
        try:
            self._append(self._resampler.resample(frame))
        except (av.error.FFmpegError, ValueError) as e:  # the layout changed in mid-stream, or the frame is damaged
            self._demuxer.count_bad_packet(e)
            self._resampler = None
            self._input_s = None

    def _flush(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = None

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            skipped = min(self._skip, len(samples))
            self._skip -= skipped
            samples = samples[skipped:]
            if len(samples):
                self._blocks.append((self._next, samples))
                self._next += len(samples)
                self.end_s = self._next / self._rate_hz
