"""Media files -> clips: evenly spaced square frames and 16 kHz mono sound. One pass over a file serves all of its clips.

It reads through the same `MediaFile` as a replay does, so that training and live use see a file alike. (`runtime.media_file`
itself imports packets and errors only, so the import makes no circle.)
"""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.config_types import require_types
from clcr_edge.data.sets.sample import Clip
from clcr_edge.errors import ConfigError, DataError
from clcr_edge.features import rgb_square
from clcr_edge.packets import ByteArray, FloatArray
from clcr_edge.runtime.media_file import MediaFile

_MOST_PIXELS = 36_000_000  # an 8K picture; a header that says more is damaged or means harm
_STEP_S = 0.2  # full-size frames are held for this long at most
_SHORT_BY_S = 0.5


@dataclass(frozen=True)
class MediaConfig:
    """How media becomes arrays; part of the cache's key.

    frames_per_s: pictures kept per second. image_size: side of the square picture, pixels. sample_rate_hz: of the sound.
    max_s: a whole file is cut there (and noted); a span that a list asks for may not be longer. One clip takes
    `max_s * (frames_per_s * 3 * image_size ** 2 + 4 * sample_rate_hz)` bytes, 2.5 MB by default.
    """

    frames_per_s: float = 5.0
    image_size: int = 112
    sample_rate_hz: int = 16_000
    max_s: float = 10.0

    def __post_init__(self) -> None:
        require_types(self)
        for name, low, high in (
            ("frames_per_s", 0.1, 60.0),
            ("image_size", 8, 512),
            ("sample_rate_hz", 4_000, 48_000),
            ("max_s", 0.1, 600.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} = {value!r}: choose {low} to {high}")
        if self.bytes_per_clip > 1 << 30:
            raise ConfigError(f"max_s = {self.max_s!r}: one clip would take {self.bytes_per_clip >> 20} MiB; at most 1024")

    @property
    def bytes_per_clip(self) -> int:
        """The most that one clip takes, decoded."""
        return int(self.max_s * (self.frames_per_s * 3 * self.image_size**2 + 4 * self.sample_rate_hz))

    @property
    def text(self) -> str:
        """All values as one line, for the cache's key."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Span:
    """A part of a file, in seconds since its start; end_s None is the file's end."""

    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """A clip, and what should be known about it (cut, no sound, ...)."""

    clip: Clip
    notes: tuple[str, ...]


class _Part:
    """One span while it fills."""

    def __init__(self, index: int, span: Span, config: MediaConfig) -> None:
        self.index = index
        self.span = span
        self.stop_s = span.start_s + config.max_s if span.end_s is None else span.end_s
        self.frames: list[ByteArray] = []
        self.audio = np.zeros(round((self.stop_s - span.start_s) * config.sample_rate_hz), np.float32)
        self.heard = 0  # samples up to here were there


def decode(
    video: Path | None, audio: Path | None, spans: Sequence[Span], config: MediaConfig
) -> Iterator[tuple[int, Decoded | DataError]]:
    """Spans of a recording -> (place in `spans`, clip or what was wrong), in the order of their ends.

    video, audio: the same file for both, or one each; None where there is none. Each clip frame is the newest frame in the
    middle of its step; steps before the first frame are black. Holes in the sound are silence. A file without one of the two
    gives a clip without it, and a note. Raises `SourceError` or `DataError` if a file cannot be opened at all.
    """
    files: dict[Path, MediaFile] = {}
    try:
        picture, sound, missing = _open(video, audio, config, files)
        yield from _walk(picture, sound, missing, list(files.values()), spans, config)
    finally:
        for media in files.values():
            media.close()


def _open(
    video: Path | None, audio: Path | None, config: MediaConfig, files: dict[Path, MediaFile]
) -> tuple[MediaFile | None, MediaFile | None, list[str]]:
    wants: dict[Path, tuple[bool, bool]] = {}
    for path in dict.fromkeys(p for p in (video, audio) if p is not None):
        probe = MediaFile(path, video=False, audio=False)
        wants[path] = (path == video and probe.has("video"), path == audio and probe.has("audio"))
        probe.close()
    for path, (see, hear) in wants.items():
        _whole_riff(path)
        if see or hear:
            files[path] = MediaFile(path, video=see, audio=hear, sample_rate_hz=config.sample_rate_hz)
    picture = files[video] if video is not None and wants[video][0] else None
    sound = files[audio] if audio is not None and wants[audio][1] else None
    if picture is None and sound is None:
        raise DataError(f"{video or audio}: holds neither picture nor sound; take it out of the list")
    if picture is not None:
        assert picture.video is not None
        width, height = picture.video.stream.width, picture.video.stream.height
        if not 0 < width * height <= _MOST_PIXELS:
            raise DataError(f"{video}: pictures of {width} x {height}; at most {_MOST_PIXELS} pixels are read")
    missing = [what for what, media in (("no picture", picture), ("no sound", sound)) if media is None]
    return picture, sound, missing


def _whole_riff(path: Path) -> None:
    """AVI and WAV say in bytes 4 to 8 how long they are; FFmpeg shortens a film that was cut off without a word."""
    with path.open("rb") as file:
        head = file.read(8)
    said, there = int.from_bytes(head[4:], "little") + 8, path.stat().st_size
    # Recorders that never came back to the header leave a huge number there.
    if head[:4] == b"RIFF" and there + 2_048 < said < 0x7FFF0000:
        raise DataError(f"{path}: cut off: {there} bytes of {said}; fetch it again")


def _walk(
    picture: MediaFile | None,
    sound: MediaFile | None,
    missing: list[str],
    files: list[MediaFile],
    spans: Sequence[Span],
    config: MediaConfig,
) -> Iterator[tuple[int, Decoded | DataError]]:
    parts = []
    for index, span in enumerate(spans):
        reason = _wrong(span, config)
        if reason:
            yield index, DataError(reason)
        else:
            parts.append(_Part(index, span, config))
    step = 1.0 / config.frames_per_s
    # (time, 0: a frame is due / 1: the part is over, part): a frame that is due at the end comes before the end.
    streams = [
        iter([*((p.span.start_s + (k + 0.5) * step, 0, p.index) for k in range(_steps(p, step))), (p.stop_s, 1, p.index)])
        for p in parts
    ]
    open_parts = {p.index: p for p in parts}
    del parts  # a part that is over must be freed, or a long recording fills the memory
    newest: ByteArray | None = None
    square: ByteArray | None = None
    now_s = 0.0
    black = np.zeros((config.image_size, config.image_size, 3), np.uint8)
    for time_s, kind, index in heapq.merge(*streams):
        while now_s < time_s:
            now_s = min(now_s + _STEP_S, time_s)
            if picture is not None:
                assert picture.video is not None
                frames = picture.video.until(now_s)
                if frames:
                    newest, square = frames[-1].image, None
            if sound is not None:
                assert sound.audio is not None
                for chunk in sound.audio.until(now_s):
                    _spread(round(chunk.t_s * config.sample_rate_hz), chunk.samples, open_parts.values(), config)
        part = open_parts[index]
        if kind == 0:
            if picture is None or (picture.video is not None and picture.video.exhausted and time_s >= picture.video.end_s):
                continue
            if newest is not None and square is None:
                square = rgb_square(newest, config.image_size)
            part.frames.append(black if square is None else square)
        else:
            del open_parts[index]
            yield index, _finish(part, picture, sound, missing, files, config)


def _steps(part: _Part, step: float) -> int:
    return max(0, int(np.ceil((part.stop_s - part.span.start_s) / step - 0.5 - 1e-9)))


def _wrong(span: Span, config: MediaConfig) -> str | None:
    if span.end_s is None:
        return None if np.isfinite(span.start_s) and span.start_s >= 0 else f"starts at {span.start_s} s; give 0 or more"
    if not (np.isfinite(span.start_s) and np.isfinite(span.end_s) and 0 <= span.start_s < span.end_s):
        return f"{span.start_s} to {span.end_s} s is no span; give 0 <= start < end, in seconds"
    if span.end_s - span.start_s > config.max_s + 1e-6:
        return f"{span.end_s - span.start_s:.1f} s long, more than max_s = {config.max_s}; cut it or raise max_s"
    return None


def _spread(first: int, samples: FloatArray, parts: Iterable[_Part], config: MediaConfig) -> None:
    for part in parts:
        origin = round(part.span.start_s * config.sample_rate_hz)
        low, high = max(first, origin), min(first + len(samples), origin + len(part.audio))
        if low < high:
            part.audio[low - origin : high - origin] = samples[low - first : high - first]
            part.heard = high - origin


def _finish(
    part: _Part,
    picture: MediaFile | None,
    sound: MediaFile | None,
    missing: list[str],
    files: list[MediaFile],
    config: MediaConfig,
) -> Decoded | DataError:
    for media in files:
        if media.problem is not None:
            return DataError(media.problem)
    notes = list(missing)
    tracks = _tracks(picture, sound)
    end_s = max(t.end_s for t in tracks)
    if part.span.end_s is not None and all(t.exhausted for t in tracks) and end_s < part.stop_s - _SHORT_BY_S:
        return DataError(f"should end at {part.stop_s:.2f} s, but the file ends at {end_s:.2f} s; correct the end")
    if part.span.end_s is None and _goes_on(picture, sound, part.stop_s):
        notes.append(f"longer than max_s = {config.max_s} s; cut there")
    audio = part.audio[: part.heard]
    if not part.frames and not part.heard:
        return DataError("holds neither a frame nor a sound in this span; take it out of the list")
    if picture is not None and not part.frames:
        notes.append("no frame in this span")
    if sound is not None and not part.heard:
        notes.append("no sound in this span")
    elif sound is not None and not np.any(audio):
        notes.append("its sound is all zero")
    size = config.image_size
    frames = np.stack(part.frames) if part.frames else np.zeros((0, size, size, 3), np.uint8)
    return Decoded(Clip(frames, config.frames_per_s, audio.copy(), config.sample_rate_hz), tuple(notes))


def _tracks(picture: MediaFile | None, sound: MediaFile | None) -> list[Any]:
    """The one or two tracks that are read."""
    found = [picture.video if picture is not None else None, sound.audio if sound is not None else None]
    return [track for track in found if track is not None]


def _goes_on(picture: MediaFile | None, sound: MediaFile | None, stop_s: float) -> bool:
    """Whether the file holds anything after `stop_s`; a tail too short for a frame step does not count."""
    return any(t.until(stop_s + 2 * _STEP_S) and t.end_s > stop_s + _STEP_S for t in _tracks(picture, sound))
