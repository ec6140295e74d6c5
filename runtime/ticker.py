"""Cuts media into ticks by media time: which frame, which samples and which words belong to tick k.

Tick k covers `[start + k / rate, start + (k + 1) / rate)`. A frame belongs to the tick in which it was captured; the newest
wins, and stands in while the camera is slower than the ticks. A tick has audio only if all of its samples are there. A word
enters the next tick after it arrives, however old it is, and never rewrites the past. Every buffer is bounded.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from clcr_edge.config import TickConfig
from clcr_edge.errors import StreamError
from clcr_edge.features import FbankStream, luma_square
from clcr_edge.packets import AudioChunk, FloatArray, VideoFrame, Word

# Of a tick: a frame stamped 0.0399999 for 0.04 belongs to tick 1. Also what rounding does to times near 1e9 s: 2e-7 s a step.
_EDGE = 1e-4
JITTER_S = 0.010  # stamps of contiguous audio may wander by this much
_MAX_FRAMES = 64  # waiting; a caller that pushes seconds of frames without stepping loses the oldest
_MAX_AUDIO_S = 30.0
_MAX_WORDS = 256


@dataclass
class SessionStats:
    """Counts since the last reset. Each packet that was not used is counted by why."""

    ticks: int = 0
    frames_used: int = 0
    frames_unused: int = 0  # a newer one came in the same tick, or the queue was full
    frames_late: int = 0  # older than one already used
    samples_used: int = 0
    samples_late: int = 0  # their tick had gone
    samples_missing: int = 0  # of ticks that went without audio although audio had begun
    words_used: int = 0
    words_dropped: int = 0  # the queue was full
    words_waiting: int = 0
    engine_retries: int = 0  # steps computed a second time because the engine failed


@dataclass(frozen=True)
class Tick:
    """What one tick holds. frame float32 `[1, S, S]` or None; fbank float32 `[F, n_mels]` or None; times as in `packets`."""

    index: int
    end_s: float
    frame: FloatArray | None
    frame_seq: int | None
    fbank: FloatArray | None
    words: tuple[Word, ...]
    frame_s: float | None
    audio_s: float | None
    word_s: float | None


def check_word(word: Word) -> None:
    """Raises `StreamError` for a word that no recogniser says: without text, without times, ending before it starts."""
    if not word.text.strip():
        raise StreamError(f"word {word.text!r} at {word.start_s} s has no text; push words only, not silence")
    if not (math.isfinite(word.start_s) and math.isfinite(word.end_s)):
        raise StreamError(f"word {word.text!r} stamped {word.start_s}..{word.end_s}: give finite times")
    if word.end_s < word.start_s:
        raise StreamError(f"word {word.text!r} ends at {word.end_s} s, before it starts at {word.start_s} s; swap the two")
    if not 0.0 <= word.confidence <= 1.0:
        raise StreamError(f"word {word.text!r} has confidence {word.confidence}; give 0 to 1, or leave it out")


class Ticker:
    """Packets in, ticks out; no clock, no thread. See the module's docstring for what belongs where."""

    def __init__(self, config: TickConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next packet, or `start`, begins a new stream."""
        self.stats = SessionStats()
        self.start_s: float | None = None
        self._index = 0
        self._frames: deque[VideoFrame] = deque()
        self._image: FloatArray | None = None
        self._shown: VideoFrame | None = None
        # Runs of unbroken samples: [position of the first sample since the start, samples]; positions rise.
        self._runs: deque[tuple[int, list[FloatArray]]] = deque()
        self._audio_end: int | None = None
        self._run_id = 0
        self._fed_run: tuple[int, int] | None = None  # (run, next position) that the filter bank expects
        self._run_ids: deque[int] = deque()
        self._fbank = FbankStream(self.config)
        self._audio_s: float | None = None
        self._words: deque[Word] = deque()
        self._word_s: float | None = None

    # -- packets in ----------------------------------------------------------------------------------------------------

    def start(self, t_s: float) -> None:
        """Set the media time at which tick 0 begins. Only before the first tick."""
        if not math.isfinite(t_s):
            raise StreamError(f"start time {t_s}: give a finite time in seconds")
        if self.start_s is not None:
            raise StreamError(f"the stream has already started at {self.start_s:.3f} s; reset the session first")
        self.start_s = t_s

    def _started(self, t_s: float, what: str) -> float:
        if not math.isfinite(t_s):
            raise StreamError(f"{what} stamped {t_s}: stamp it with a finite time in seconds")
        if self.start_s is None:
            self.start_s = t_s
        return self.start_s

    def push_frame(self, frame: VideoFrame) -> None:
        """Queue a frame. Frames must come in the order of their times."""
        image = frame.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise StreamError(f"frame {frame.seq}: {image.dtype} {image.shape}; expected uint8 [H, W, 3], RGB")
        self._started(frame.t_s, f"frame {frame.seq}")
        newest = self._frames[-1] if self._frames else self._shown
        if newest is not None and frame.t_s < newest.t_s:
            self.stats.frames_late += 1
            return
        if len(self._frames) == _MAX_FRAMES:
            self._frames.popleft()
            self.stats.frames_unused += 1
        self._frames.append(frame)

    def push_audio(self, chunk: AudioChunk) -> None:
        """Append samples at the configured rate. Stamps decide where they belong; small jitter is smoothed over."""
        config = self.config
        if chunk.rate_hz != config.sample_rate_hz:
            raise StreamError(f"audio at {chunk.rate_hz} Hz: resample it to {config.sample_rate_hz} Hz before pushing")
        if chunk.samples.ndim != 1 or chunk.samples.dtype != np.float32:
            raise StreamError(f"audio {chunk.samples.dtype} {chunk.samples.shape}: expected float32 [N], mono")
        start_s = self._started(chunk.t_s, "audio")
        samples = chunk.samples
        if not len(samples):
            return
        if not np.isfinite(samples).all():
            raise StreamError(f"audio at {chunk.t_s:.3f} s holds NaN or infinite samples; drop the chunk at the source")
        position = round((chunk.t_s - start_s) * config.sample_rate_hz)
        end = self._audio_end
        if end is not None and abs(position - end) <= JITTER_S * config.sample_rate_hz:
            position = end
        floor = max(self._index * config.samples, end or 0)
        if position < floor:  # its tick has gone, or the samples are here already
            late = min(floor - position, len(samples))
            self.stats.samples_late += late
            samples, position = samples[late:], position + late
            if not len(samples):
                return
        if end is None or position != end or not self._runs:
            self._run_id += 1
            self._runs.append((position, []))
            self._run_ids.append(self._run_id)
        self._runs[-1][1].append(samples)
        self._audio_end = position + len(samples)
        limit = self._index * config.samples + int(_MAX_AUDIO_S * config.sample_rate_hz)
        if self._audio_end > limit:
            raise StreamError(
                f"more than {_MAX_AUDIO_S:.0f} s of audio are waiting: step the session as the media goes on "
                f"(next tick ends at {self.next_end_s:.2f} s, audio reaches {chunk.end_s:.2f} s)"
            )

    def push_word(self, word: Word) -> None:
        """Queue a recognised word for the next tick. Raises `StreamError` for what no recogniser says."""
        check_word(word)
        self._started(word.start_s, f"word {word.text!r}")
        if len(self._words) == _MAX_WORDS:
            self._words.popleft()
            self.stats.words_dropped += 1
        self._words.append(word)

    # -- ticks out -----------------------------------------------------------------------------------------------------

    @property
    def next_end_s(self) -> float:
        """Media time at which the next tick ends. Before the start: as if the stream started at 0."""
        return (self.start_s or 0.0) + (self._index + 1) / self.config.rate_hz

    @property
    def audio_until_s(self) -> float | None:
        """Media time up to which audio has been pushed; None before the first sample."""
        if self._audio_end is None or self.start_s is None:
            return None
        return self.start_s + self._audio_end / self.config.sample_rate_hz

    def cut(self, look: bool = True, words: bool = True) -> Tick:
        """The next tick, from what has been pushed.

        look: whether it takes a camera frame. If not, `frame` is None and `frame_seq` that of the frame last taken while it
        still stands in. words: whether it takes words; if not, they wait for the next.
        """
        if self.start_s is None:
            raise StreamError("nothing has been pushed yet: call start(t_s), or push a packet, before step()")
        end_s = self.next_end_s
        frame, seq = self._cut_frame(end_s, look)
        fbank = self._cut_audio(end_s)
        most = self.config.words_per_tick if words else 0
        taken = tuple(self._words.popleft() for _ in range(min(len(self._words), most)))
        if taken:
            self._word_s = max(w.end_s for w in taken)
        self.stats.words_used += len(taken)
        self.stats.words_waiting = len(self._words)
        self.stats.ticks += 1
        tick = Tick(
            index=self._index,
            end_s=end_s,
            frame=frame,
            frame_seq=seq,
            fbank=fbank,
            words=taken,
            frame_s=self._shown.t_s if self._shown else None,
            audio_s=self._audio_s,
            word_s=self._word_s,
        )
        self._index += 1
        return tick

    def _cut_frame(self, end_s: float, look: bool) -> tuple[FloatArray | None, int | None]:
        newest = None
        while self._frames and self._frames[0].t_s < end_s - _EDGE / self.config.rate_hz:
            if newest is not None:
                self.stats.frames_unused += 1
            newest = self._frames.popleft()
        if newest is not None and not look:
            self._frames.appendleft(newest)  # making it small is the dearest part of a frame: only where it is looked at
        elif newest is not None:
            self._shown = newest
            self._image = luma_square(newest.image, self.config.image_size)
            self.stats.frames_used += 1
        if self._shown is None or end_s - self._shown.t_s > self.config.hold_frame_s + _EDGE / self.config.rate_hz:
            return None, None
        return (self._image if look else None), self._shown.seq

    def _cut_audio(self, end_s: float) -> FloatArray | None:
        size = self.config.samples
        first, last = self._index * size, (self._index + 1) * size
        found = None
        while self._runs:
            position, parts = self._runs[0]
            length = sum(len(p) for p in parts)
            run = self._run_ids[0]
            if position >= last:
                break
            if position <= first and position + length >= last:
                joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
                found = joined[first - position : last - position]
                rest = joined[last - position :]
                if len(rest) or len(self._runs) == 1:
                    self._runs[0] = (last, [rest])
                else:
                    self._runs.popleft()
                    self._run_ids.popleft()
                break
            if position + length >= last:  # begins inside this tick: its part of the tick cannot be used
                joined = np.concatenate(parts)
                self.stats.samples_late += last - position
                self._runs[0] = (last, [joined[last - position :]])
                break
            if len(self._runs) == 1:  # ends inside this tick
                self.stats.samples_late += length
                self._runs.clear()
                self._run_ids.clear()
                break
            self.stats.samples_late += length
            self._runs.popleft()
            self._run_ids.popleft()
        if found is None:
            if self._audio_end is not None:
                self.stats.samples_missing += size
            self._fed_run = None
            return None
        if self._fed_run != (run, first):
            self._fbank.reset()
        self._fed_run = (run, last)
        self.stats.samples_used += size
        self._audio_s = end_s
        return self._fbank.push(np.ascontiguousarray(found))
