"""A recording of a run, as it lies on the disk, and its reader. `Recorder` writes it, `replaying` runs it again.

    recording.toml      schema, which bundle, precision, engine and machine, ticks and rates; written first, never again
    events.jsonl        every call that the session got, in order, with its stamps and when it came; each prediction
    sound.au            the samples as pushed: float32, mono, one after the other (AU: its header needs no length)
    pictures-0001.nut   luma of the frames, lossless; a new file when the camera's resolution changes

All are only ever appended to, media before the events that name them, and events by whole ticks: whatever kills the process,
what is there replays up to its last whole tick. A recording that was closed ends in an "end" event. Numbers are written so that
they read back as the same bits. Nothing in it is pickled and it names no file: the names are these.
"""

from __future__ import annotations

import json
import math
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clcr_edge import toml_io
from clcr_edge.errors import RecordingError
from clcr_edge.packets import AudioChunk, ByteArray, FloatArray, VideoFrame, Word
from clcr_edge.runtime.recorded_pictures import MOST_SIDE, read_pictures

SCHEMA = 1
MANIFEST, EVENTS, SOUND = "recording.toml", "events.jsonl", "sound.au"
SOUND_HEADER = 28
MOST_LINE = 1 << 20
_TABLES = {"bundle": ("name", "path", "sha256", "graph_sha256"), "engine": ("name", "precision", "machine")}
_MOST_MANIFEST = 1 << 20
_MOST_PACKETS = 4_096  # before one step
_MOST_SAMPLES = 1 << 20
_MOST_RUNG = 999


def picture_name(number: int) -> str:
    """File name of the pictures numbered 1, 2, ..."""
    return f"pictures-{number:04d}.nut"


@dataclass
class Step:
    """What one step was made of. start_s: the session was reset and started at this time first.

    packets: in the order in which they were pushed. lost: of those, how many frames the recording lacks. prediction: what the
    run said, as plain JSON values; empty for a tick that was passed over, under the rung `skipped`.
    """

    packets: list[VideoFrame | AudioChunk | Word] = field(default_factory=list)
    start_s: float | None = None
    lost: int = 0
    prediction: dict[str, Any] = field(default_factory=dict)
    skipped: int | None = None


@dataclass(frozen=True)
class End:
    """How a recording ended. closed: by itself, as opposed to killed. why: in words."""

    closed: bool
    why: str


class Recording:
    """A recording, opened. Raises `RecordingError` naming the file and what is wrong with it.

    manifest: the table of `recording.toml`, its shape checked. end: how it ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise RecordingError(f"{folder}: no such recording; make one with: clcr-edge run --record {folder}")
        path = self._file(MANIFEST)
        if path.stat().st_size > _MOST_MANIFEST:
            raise RecordingError(f"{path}: larger than {_MOST_MANIFEST} bytes; this is no manifest")
        try:
            self.manifest = toml_io.loads(path.read_text("utf-8"))
        except (toml_io.TOMLDecodeError, UnicodeDecodeError) as e:
            raise RecordingError(f"{path}: not readable as TOML ({e}); copy the recording again") from None
        schema = self.manifest.get("schema")
        if type(schema) is not int or schema < 1 or schema > SCHEMA:
            raise RecordingError(f"{path}: schema {schema!r}, but this version reads {SCHEMA}; update clcr-edge")
        for table, keys in _TABLES.items():
            given = self.manifest.get(table)
            if not isinstance(given, dict) or any(not isinstance(given.get(key), str) for key in keys):
                raise RecordingError(f"{path}: [{table}] needs {', '.join(keys)}; copy the recording again")
        tick = self.manifest.get("tick")
        if not isinstance(tick, dict) or any(type(tick.get(k)) is not int for k in ("rate_hz", "sample_rate_hz")):
            raise RecordingError(f"{path}: [tick] needs rate_hz and sample_rate_hz; copy the recording again")
        self.rate_hz, self.sample_rate_hz = int(tick["rate_hz"]), int(tick["sample_rate_hz"])
        self._events = self._file(EVENTS)
        self.end = self._last_words()

    def _file(self, name: str) -> Path:
        path = self.folder / name
        try:
            plain = stat.S_ISREG(path.lstat().st_mode)
        except OSError:
            raise RecordingError(f"{path}: not there; a recording has {MANIFEST} and {EVENTS}: name its folder") from None
        if not plain:
            raise RecordingError(f"{path}: a link or no plain file; a recording holds plain files only")
        return path

    def _last_words(self) -> End:
        with self._events.open("rb") as f:
            f.seek(max(0, self._events.stat().st_size - 4_096))
            tail = f.read()
        last = tail.rstrip(b"\n").rpartition(b"\n")[2]
        if tail.endswith(b"\n") and last.startswith(b'{"e":"end"'):
            try:
                return End(True, str(json.loads(last)["why"]))
            except (ValueError, KeyError, TypeError):
                pass
        return End(False, "it was killed")

    def steps(self) -> Iterator[Step]:
        """The steps in order; one tick's media in memory at a time.

        A recording that was not closed ends at its last whole tick. Raises `RecordingError` for one that is damaged before.
        """
        with _Media(self) as media, self._events.open("rb") as lines:
            step, number = Step(), 0
            while True:
                line = lines.readline(MOST_LINE)
                number += 1
                if not line.endswith(b"\n"):
                    if len(line) >= MOST_LINE or (self.end.closed and line):
                        raise self._damaged(number, "no line of a recording")
                    return
                try:
                    done = self._take(json.loads(line), step, media)
                except _CutOffError as e:
                    if self.end.closed:
                        raise self._damaged(number, str(e)) from None
                    return  # the disk did not get everything, as after a power cut
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
                    raise self._damaged(number, f"{type(e).__name__}: {e}") from None
                if done:
                    yield step
                    step = Step()

    def _damaged(self, line: int, what: str) -> RecordingError:
        return RecordingError(f"{self._events}, line {line}: damaged ({what[:120]}); copy the recording again")

    def _take(self, event: Any, step: Step, media: _Media) -> bool:
        """One event into a step; whether the step is complete."""
        kind = event["e"]
        if kind == "step":
            step.prediction = dict(event["prediction"])
            return True
        if kind == "skip":
            step.skipped = _whole(event["rung"], 0, _MOST_RUNG)
            return True
        if kind == "start":
            step.start_s = _seconds(event["t_s"])
        elif kind == "frame":
            image = media.picture(_whole(event["file"], 1, 9_999), _whole(event["side"], 1, MOST_SIDE), event["crc"])
            step.packets.append(VideoFrame(image, _seconds(event["t_s"]), int(event["seq"])))
        elif kind == "lost":
            step.lost += 1
        elif kind == "audio":
            samples = media.sound(_whole(event["n"], 0, _MOST_SAMPLES), event["crc"])
            step.packets.append(AudioChunk(samples, _whole(event["rate_hz"], 1, 1 << 20), _seconds(event["t_s"])))
        elif kind == "word":
            times = _seconds(event["start_s"]), _seconds(event["end_s"])
            step.packets.append(Word(str(event["text"]), *times, _seconds(event["confidence"])))
        elif kind != "end":
            raise ValueError(f"event {kind!r}")
        if len(step.packets) > _MOST_PACKETS:
            raise ValueError(f"more than {_MOST_PACKETS} packets before one step")
        return False


class _CutOffError(Exception):
    """Media that an event names is not there any more."""


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"time {value!r}")
    return number


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r}, expected {least} to {most}")
    return value


class _Media:
    """Hands out pictures and samples in order, and checks each against its event."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._sound: BinaryIO | None = None
        self._left = 0
        self._number = 0
        self._pictures: Iterator[ByteArray] = iter(())

    def __enter__(self) -> _Media:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._sound is not None:
            self._sound.close()

    def picture(self, number: int, side: int, crc: int) -> ByteArray:
        """The next picture, uint8 `[S, S, 3]`."""
        if number != self._number:
            self._number = number
            self._pictures = read_pictures(self._recording._file(picture_name(number)), side)
        luma = next(self._pictures, None)
        if luma is None:
            raise _CutOffError(f"{picture_name(number)} is too short")
        if luma.shape != (side, side) or zlib.crc32(luma.data) != crc:
            raise ValueError(f"a picture in {picture_name(number)} is not the one recorded")
        return np.repeat(luma[..., None], 3, axis=2)

    def sound(self, count: int, crc: int) -> FloatArray:
        """The next samples, float32 `[N]`."""
        if self._sound is None:
            path = self._recording._file(SOUND)
            self._sound = path.open("rb")
            self._sound.seek(SOUND_HEADER)
            self._left = path.stat().st_size - SOUND_HEADER
        if 4 * count > self._left:
            raise _CutOffError(f"{SOUND} is too short")
        self._left -= 4 * count
        data = self._sound.read(4 * count)
        if zlib.crc32(data) != crc:
            raise ValueError(f"{SOUND} does not hold the samples recorded")
        return np.frombuffer(data, ">f4").astype(np.float32)
