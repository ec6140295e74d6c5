"""A folder of recordings as calibration streams: the device's own pictures and sounds, replayed as `run` would.

    DIR/*.mp4, *.mkv, *.avi, *.mpg, *.wav, *.flac, ...     each file is one stream
    DIR/<file's stem>.words.jsonl                          optional: {"text", "start_s", "end_s", "confidence"} a line
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import av
import av.error

from clcr_edge.calibration.sets import CalibrationSet, TickStream
from clcr_edge.config import StudentConfig
from clcr_edge.errors import DataError, SourceError, StreamError
from clcr_edge.packets import Word
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.file_feed import FileFeed
from clcr_edge.runtime.session import step_inputs
from clcr_edge.runtime.ticker import Ticker, check_word

_SUFFIXES = {".mp4", ".mkv", ".avi", ".mpg", ".mpeg", ".mov", ".webm", ".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"}
_WORD_DELAY_S = 0.3  # a recogniser needs about this long; the sidecar says when a word was spoken, not when it arrived
_LEAST_TICKS = 250


def recorded_set(folder: Path) -> CalibrationSet:
    """The recordings of a folder. Raises `DataError` if it holds none, or too little to calibrate on."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with recordings (mp4, avi, wav, flac, ...)")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not files:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:3]) or "nothing"
        raise DataError(f"{folder}: no recording in it (found {found}); put mp4, avi, wav or flac files there")
    ticks = sum(round(_seconds(f) * 25) for f in files)
    if ticks < _LEAST_TICKS:
        raise DataError(f"{folder}: only {ticks / 25:.1f} s of recordings; give at least {_LEAST_TICKS / 25:.0f} s")

    # Read here, so that a fault is told before minutes of work.
    words = {file: _words(file.with_name(f"{file.stem}.words.jsonl")) for file in files}

    def opened(config: StudentConfig) -> Iterator[TickStream]:
        for file in files:
            yield TickStream(_replayed(file, list(words[file]), config))

    return CalibrationSet(f"{len(files)} recordings in {folder.name}", opened, ticks)


def _seconds(path: Path) -> float:
    try:
        with av.open(str(path)) as container:
            return float(container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError) as e:
        raise SourceError(f"{path}: cannot be read as a media file ({e}); remove it or record it again") from None


def _replayed(path: Path, words: list[Word], config: StudentConfig) -> Iterator[StepInputs]:
    with av.open(str(path)) as container:
        has_video, has_audio = bool(container.streams.video), bool(container.streams.audio)
    feed = FileFeed(path if has_video else None, path if has_audio else None, tick_s=config.tick.seconds, fast=True)
    ticker = Ticker(config.tick)
    ticker.start(feed.start_s)
    try:
        while (batch := feed.collect(ticker.next_end_s)) is not None:
            for frame in batch.frames:
                ticker.push_frame(frame)
            for chunk in batch.chunks:
                ticker.push_audio(chunk)
            while words and words[0].end_s + _WORD_DELAY_S <= ticker.next_end_s:
                ticker.push_word(words.pop(0))
            yield step_inputs(ticker.cut(), config)
    finally:
        feed.close()


def _words(path: Path) -> list[Word]:
    """The words beside a recording, in the order of their ends; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: not readable as text in UTF-8 ({e}); write it again, or remove it") from None
    words = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            word = Word(
                str(entry["text"]), float(entry["start_s"]), float(entry["end_s"]), float(entry.get("confidence", 1.0))
            )
            check_word(word)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{path}, line {number}: expected an object with text, start_s and end_s") from None
        except StreamError as e:
            raise DataError(f"{path}, line {number}: {e}") from None
        words.append(word)
    return sorted(words, key=lambda w: w.end_s)
