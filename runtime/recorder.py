"""Writes a recording of a run beside it: what the session is given and what it says. A tick never waits for the disk.

The pipeline's thread only puts references into a queue. A thread of its own encodes and writes. If the disk is too slow, frames
are lost first, each counted and named in the events (more than `MOST_WAITING_BYTES` wait); if even words and predictions pile
up (`MOST_WAITING_ITEMS`, about a minute), or if writing fails, the recording ends there with one notice, whole up to its last
tick, and predictions go on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clcr_edge import toml_io
from clcr_edge.errors import UsageError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.recorded_pictures import PictureWriter, luma_of
from clcr_edge.runtime.recording import EVENTS, MANIFEST, SCHEMA, SOUND, SOUND_HEADER, picture_name

MOST_WAITING_BYTES = 64 << 20
MOST_WAITING_ITEMS = 8_192
_RESERVE, _RESERVE_BYTES = ".reserve", 16_384  # given up when the disk is full, so that the last words can still be written
_CLOSE_S = 10.0


@dataclasses.dataclass(frozen=True)
class About:
    """What a recording says of the run. bundle: name, path, sha256 (of its manifest), graph_sha256. engine: name, precision,
    machine. tick: rate_hz, sample_rate_hz. version: of clcr-edge."""

    bundle: dict[str, str]
    engine: dict[str, str]
    tick: dict[str, int]
    version: str


class Recorder:
    """Records into `folder`, made here, for its owner alone. Raises `UsageError` if it holds something already, and `OSError`.

    >>> recorder = Recorder(folder, about, notice)                         # doctest: +SKIP
    >>> pipeline = open_pipeline(session, plan, listener=recorder.listening(listener))   # doctest: +SKIP

    patient: wait for the disk instead of losing anything, for files that are read faster than real time. seconds: recorded so
    far. frames_lost: frames that the recording lacks. problem: why it ended early, None if it did not.
    """

    def __init__(
        self,
        folder: Path,
        about: About,
        notice: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        patient: bool = False,
    ) -> None:
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # pictures and speech from a room: nobody else's business
        self.folder = folder
        self.frames_lost = 0
        self.problem: str | None = None
        self.seconds = 0.0
        self._notice, self._clock, self._about = notice, clock, about
        self._patient = patient
        self._ending = False
        self._queue: queue.SimpleQueue[tuple[str, Any, float] | None] = queue.SimpleQueue()
        # Each is written by one thread only, so that the difference needs no lock.
        self._bytes_in = self._bytes_out = self._items_in = self._items_out = 0
        self._lines: list[str] = []
        self._good = 0  # bytes of whole ticks in the events
        self._pictures: PictureWriter | None = None
        self._picture_files = 0
        self._start_s: float | None = None
        self._fds: dict[str, int] = {}
        try:
            self._open()
        except BaseException:
            self._shut()
            for name in (EVENTS, SOUND, _RESERVE, f".{MANIFEST}"):
                (folder / name).unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(target=self._run, name="clcr-edge-recorder", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        manifest = {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "clcr_edge": self._about.version,
            "bundle": self._about.bundle,
            "engine": self._about.engine,
            "tick": self._about.tick,
        }
        for name in (EVENTS, SOUND, _RESERVE):
            self._fds[name] = os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        _write(self._fds[_RESERVE], bytes(_RESERVE_BYTES))
        rate_hz = self._about.tick["sample_rate_hz"]
        # 0xFFFFFFFF: "length not known", so the header is right from the first sample to the last; 6: float32.
        _write(self._fds[SOUND], struct.pack(">4s5I4x", b".snd", SOUND_HEADER, 0xFFFFFFFF, 6, rate_hz, 1))
        scratch = self.folder / f".{MANIFEST}"
        fd = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            _write(fd, toml_io.dumps(manifest).encode())
        finally:
            os.close(fd)
        scratch.rename(self.folder / MANIFEST)

    # -- the pipeline's thread: nothing here waits ---------------------------------------------------------------------

    def listening(self, other: Listener) -> Listener:
        """A listener that records, and passes everything on to another one."""

        def both(kind: str, told: Callable[[Any], None]) -> Callable[[Any], None]:
            def tell(what: Any) -> None:
                self._put(kind, what)
                told(what)

            return tell

        return dataclasses.replace(
            other,
            on_start=both("start", other.on_start),
            on_frame=both("frame", other.on_frame),
            on_audio=both("audio", other.on_audio),
            on_word=both("word", other.on_word),
            on_prediction=both("step", other.on_prediction),
            on_skip=both("skip", other.on_skip),
        )

    def _put(self, kind: str, what: Any) -> None:
        if self._ending:
            return
        size = what.image.nbytes if kind == "frame" else what.samples.nbytes if kind == "audio" else 0
        while self._patient and self._thread.is_alive() and self._items_in - self._items_out > 64:
            time.sleep(0.002)
        if kind == "frame" and self._bytes_in - self._bytes_out + size > MOST_WAITING_BYTES:
            self.frames_lost += 1
            kind, what, size = "lost", (what.t_s, what.seq), 0
        if self._items_in - self._items_out >= MOST_WAITING_ITEMS:
            self._ending = True  # the thread sees it when the disk lets it go on
            self._stopped("the disk does not keep up")
            return
        self._bytes_in += size
        self._items_in += 1
        self._queue.put((kind, what, self._clock()))

    def close(self) -> None:
        """Write what waits, and close. A disk that hangs is given up after ten seconds."""
        self._ending = True
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            if self.problem is None:
                self._stopped("the disk hangs")
        elif not self._good:  # no tick: the run never began, and a second try must find the folder free
            for name in (MANIFEST, EVENTS, SOUND, picture_name(1)):
                (self.folder / name).unlink(missing_ok=True)

    @property
    def line(self) -> str:
        """What became of it, in one line."""
        files = [f for f in self.folder.iterdir() if f.is_file()]
        lost = f", incomplete: {self.frames_lost} frames lost" if self.frames_lost else ""
        return f"recorded {self.seconds:.1f} s in {self.folder}, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB{lost}"

    def _stopped(self, why: str) -> None:
        self.problem = why
        self._notice(f"recording stopped: {why}; {self.folder} is whole up to there, and predictions go on")

    # -- the recorder's own thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                kind, what, at_s = item
                self._take(kind, what, at_s)
                self._items_out += 1
                self._bytes_out += what.image.nbytes if kind == "frame" else what.samples.nbytes if kind == "audio" else 0
        except Exception as e:  # libav's errors share no useful root; whatever it is, predictions go on
            self._ending = True
            while not self._queue.empty():  # frames that nobody will write
                self._queue.get()
            self._stopped((e.strerror if isinstance(e, OSError) else None) or f"{type(e).__name__}: {e}")
        with suppress(OSError):
            self._last_words()
        self._shut()

    def _take(self, kind: str, what: Any, at_s: float) -> None:
        event: dict[str, Any] = {"e": kind, "at_s": at_s}
        if isinstance(what, VideoFrame):
            event |= {"t_s": what.t_s, "seq": what.seq, **self._picture(what)}
        elif isinstance(what, AudioChunk):
            data = what.samples.astype(">f4").tobytes()
            _write(self._fds[SOUND], data)
            event |= {"t_s": what.t_s, "rate_hz": what.rate_hz, "n": len(what.samples), "crc": zlib.crc32(data)}
        elif isinstance(what, Word):
            event |= dataclasses.asdict(what)
        elif isinstance(what, Prediction):
            event["prediction"] = plain(what)
        elif kind == "skip":
            event["rung"] = what
        elif kind == "start":
            event["t_s"] = what
            self._start_s = what if self._start_s is None else self._start_s
        else:
            event |= {"t_s": what[0], "seq": what[1]}
        self._lines.append(json.dumps(event, separators=(",", ":"), default=str))
        if kind in ("step", "skip"):
            text = "\n".join([*self._lines, ""]).encode()
            self._lines.clear()
            _write(self._fds[EVENTS], text)
            self._good += len(text)
            self.seconds += 1.0 / self._about.tick["rate_hz"]

    def _picture(self, frame: VideoFrame) -> dict[str, int]:
        luma = luma_of(frame.image)
        if self._pictures is None or self._pictures.side != len(luma):
            if self._pictures is not None:
                self._pictures.close()
                self._pictures = None
            self._picture_files += 1
            self._pictures = PictureWriter(self.folder / picture_name(self._picture_files), len(luma))
        self._pictures.add(luma, frame.t_s - (self._start_s or 0.0))
        return {"file": self._picture_files, "side": len(luma), "crc": zlib.crc32(luma.data)}

    def _last_words(self) -> None:
        """Back to the last whole tick, and one line that says that this is the end."""
        os.ftruncate(self._fds[EVENTS], self._good)
        os.lseek(self._fds[EVENTS], self._good, os.SEEK_SET)
        (self.folder / _RESERVE).unlink()
        os.close(self._fds.pop(_RESERVE))
        end = {"e": "end", "at_s": self._clock(), "why": self.problem or "the run ended", "frames_lost": self.frames_lost}
        _write(self._fds[EVENTS], (json.dumps(end, separators=(",", ":")) + "\n").encode())

    def _shut(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
        while self._fds:
            os.close(self._fds.popitem()[1])


def plain(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON values that read back as the same numbers, to the last bit."""
    return dataclasses.asdict(prediction)


def check_free(folder: Path) -> None:
    """Raises `UsageError` unless a recording may be made in `folder`: it is not there, or an empty directory."""
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"--record {folder}: there is something already; name a new or an empty folder")


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while len(left):
        left = left[os.write(fd, left) :]
