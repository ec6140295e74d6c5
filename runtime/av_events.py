"""Sudden things in pictures and in sound, and when they were: flashes, the moment hands meet, and the onset of a sound.

Of a frame two numbers are kept, of two milliseconds of sound one. Nothing that could be looked at or listened to.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from clcr_edge.packets import AudioChunk, ByteArray, FloatArray, VideoFrame

Times = npt.NDArray[np.float64]

_GRID = (12, 16)  # blocks of a frame; a lamp or a screen fills a few of them
_HOP_S = 0.002
_APART_S = 0.25  # two onsets closer than this are one
_LEAST_RISE = 8.0  # grey levels by which the brightest tenth of the blocks must rise at once
_LEAST_MOTION = 1.0  # grey levels, mean over the frame
_LEAST_POWER = 1e-7  # of the differentiated sound: about -70 dB
_RATIO = 30.0  # an onset is 15 dB above what was there just before
_BEFORE = 25  # hops


class Eye:
    """Takes frames; gives the times of flashes and of claps. A flash is stamped by the first frame that shows it."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._rise: list[float] = []
        self._motion: list[float] = []
        self._last: tuple[FloatArray, FloatArray] | None = None

    def push(self, frame: VideoFrame) -> None:
        """Note what a frame changes."""
        fine = _small(frame.image)
        rows, columns = (n // g * g for n, g in zip(fine.shape, _GRID, strict=True))
        blocks = fine[:rows, :columns].reshape(_GRID[0], rows // _GRID[0], _GRID[1], columns // _GRID[1]).mean(axis=(1, 3))
        rise = motion = 0.0
        if self._last is not None and self._last[1].shape == fine.shape:
            changes = np.sort((blocks - self._last[0]).ravel())
            tenth = max(1, changes.size // 10)
            # What moves darkens one place as it brightens another; a lamp only brightens.
            rise = float(changes[-tenth:].mean() + 3 * min(changes[:tenth].mean(), 0.0))
            motion = float(np.abs(fine - self._last[1]).mean())
        self._last = (blocks, fine)
        self._times.append(frame.t_s)
        self._rise.append(rise)
        self._motion.append(motion)

    @property
    def frame_s(self) -> float:
        """The usual time between two frames; NaN before there are two."""
        return float(np.median(np.diff(self._times))) if len(self._times) > 1 else float("nan")

    def flashes(self) -> Times:
        """When it grew bright, seconds."""
        rise = np.array(self._rise)
        return _first(np.array(self._times), rise > _unusual(rise, _LEAST_RISE))

    def claps(self) -> Times:
        """When a burst of movement stopped, seconds: the first frame that moves less than half as much as the fastest."""
        motion, times = np.array(self._motion), np.array(self._times)
        found = []
        # Hands are never quite still: the fastest movements there are serve as the measure.
        fast = max(_LEAST_MOTION, 0.4 * float(np.percentile(motion, 98))) if motion.size else 0.0
        for begin_s in _first(times, motion > fast):
            begin = int(np.searchsorted(times, begin_s))
            end = int(np.searchsorted(times, begin_s + _APART_S))
            peak = begin + int(np.argmax(motion[begin:end]))
            still = np.flatnonzero(motion[peak:] < motion[peak] / 2)
            if still.size:
                found.append(times[peak + still[0]])
        return np.array(found)


class Ear:
    """Takes chunks of sound; gives the times at which something sudden was heard, to about two milliseconds."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._power: list[float] = []
        self._rest = np.empty(0, np.float32)
        self._rest_s = 0.0

    def push(self, chunk: AudioChunk) -> None:
        """Note how loud the chunk is, hop by hop."""
        hop = round(chunk.rate_hz * _HOP_S)
        if len(self._rest) and abs(self._rest_s + len(self._rest) / chunk.rate_hz - chunk.t_s) > _HOP_S / 2:
            self._rest = self._rest[:0]  # a hole: what was left over belongs to nothing
        start_s = chunk.t_s - len(self._rest) / chunk.rate_hz
        samples = np.concatenate([self._rest, chunk.samples])
        whole = len(samples) // hop
        # Differences, because hum and rumble are loud and say nothing about when.
        steps = np.diff(samples[: whole * hop], prepend=samples[:1]).reshape(whole, hop)
        self._power += np.square(steps).mean(axis=1).tolist()
        self._times += (start_s + np.arange(whole) * hop / chunk.rate_hz).tolist()
        self._rest, self._rest_s = samples[whole * hop :], start_s + whole * hop / chunk.rate_hz

    def onsets(self) -> Times:
        """When it grew loud, seconds."""
        power, times = np.array(self._power), np.array(self._times)
        found: list[float] = []
        for k in np.flatnonzero(power > max(_LEAST_POWER, 4 * float(np.median(power)) if power.size else 0.0)):
            if k < _BEFORE or (found and times[k] - found[-1] < _APART_S):
                continue
            if power[k] > _RATIO * np.median(power[k - _BEFORE : k]):
                found.append(float(times[k]))
        return np.array(found)


def _small(image: ByteArray) -> FloatArray:
    """Grey, on a grid of 48 x 64 points or a little more."""
    height, width = image.shape[:2]
    small = image[:: max(1, height // 48), :: max(1, width // 64)].mean(axis=2, dtype=np.float32)
    if small.shape[0] < _GRID[0] or small.shape[1] < _GRID[1]:  # tiny pictures
        small = np.repeat(np.repeat(small, _GRID[0], axis=0), _GRID[1], axis=1)
    result: FloatArray = small
    return result


def _unusual(values: npt.NDArray[np.float64], least: float) -> float:
    """What only few values exceed: six deviations above the middle, and at least `least`."""
    if not values.size:
        return least
    middle = float(np.median(values))
    return max(least, middle + 6 * 1.48 * float(np.median(np.abs(values - middle))))


def _first(times: Times, above: npt.NDArray[np.bool_]) -> Times:
    """The first time of every run above, runs closer than `_APART_S` being one."""
    found: list[float] = []
    last_s = -np.inf
    for t_s in times[above]:
        if t_s - last_s >= _APART_S:
            found.append(float(t_s))
        last_s = t_s
    return np.array(found)


def watch(frames: Iterable[VideoFrame], chunks: Iterable[AudioChunk], eye: Eye, ear: Ear) -> None:
    """Push all of both."""
    for frame in frames:
        eye.push(frame)
    for chunk in chunks:
        ear.push(chunk)
