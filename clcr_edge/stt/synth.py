"""Synthetic speech with exact labels: espeak-ng through its C library.

The library reports when each word and each phoneme of the rendered audio begins, so no aligner is needed. Loaded with
ctypes from the system's package; nothing of espeak-ng is shipped with this project.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.errors import MissingPartError, UsageError
from clcr_edge.stt.arrays import FloatArray

_RETRIEVE_SYNCHRONOUSLY = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when all audio has been handed over
_PHONEME_EVENTS = 1  # espeakINITIALIZE_PHONEME_EVENTS
_WORD, _PHONEME = 1, 7
_RATE, _PITCH, _RANGE, _GAP = 1, 3, 4, 7
_UTF8 = 1
_DRAWN = "drawn"  # name of the variant file that holds a drawn voice


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """How to speak: an espeak-ng voice file and variant, words per minute, pitch and its range (0..100), word gap (10 ms).

    `drawn` is the text of a variant file that espeak-ng does not have (see `drawn_voices`); it takes the variant's place.
    """

    accent: str = "gmw/en"
    variant: str = ""
    words_per_minute: int = 170
    pitch: int = 50
    pitch_range: int = 50
    gap: int = 0
    drawn: str = ""

    @property
    def name(self) -> str:
        """Name for espeak-ng. An unknown variant would silently give the plain voice: see `Synthesiser.speak`."""
        variant = _DRAWN if self.drawn else self.variant
        return f"{self.accent}+{variant}" if variant else self.accent


@dataclass(frozen=True)
class Segment:
    """A phoneme (espeak-ng's own name, without stress marks) of word number `word`, from `start_s` to `end_s`."""

    phone: str
    word: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """Audio float32 `[N]` in -1..1 at `rate_hz`, and its phonemes in order; pauses belong to no segment."""

    samples: FloatArray
    rate_hz: int
    words: tuple[str, ...]
    segments: tuple[Segment, ...]


class Synthesiser:
    """The espeak-ng library. One per process: the library keeps global state. Use `synthesiser()`."""

    def __init__(self) -> None:
        path = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise MissingPartError("espeak-ng is not installed: apt-get install espeak-ng") from error
        self._libc = ctypes.CDLL(None)
        self._chunks: list[FloatArray] = []
        self._events: list[tuple[int, int, int, str]] = []
        self._callback = _Callback(self._collect)
        self._own_voices: tempfile.TemporaryDirectory[str] | None = None
        self._initialise(None)

    def _initialise(self, folder: str | None) -> None:
        path = folder.encode() if folder else None
        self.rate_hz = int(self._library.espeak_Initialize(_RETRIEVE_SYNCHRONOUSLY, 200, path, _PHONEME_EVENTS))
        if self.rate_hz <= 0:
            raise MissingPartError("espeak-ng has no voice data: apt-get install espeak-ng-data")
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ("", "")

    def _write_drawn(self, text: str) -> None:
        """espeak-ng reads variants from its data only. So a folder that is the system's by links, but for the variants."""
        if self._own_voices is None:
            found = ctypes.c_char_p()
            self._library.espeak_Info.restype = ctypes.c_char_p
            self._library.espeak_Info(ctypes.byref(found))
            system = Path((found.value or b"").decode())
            self._own_voices = tempfile.TemporaryDirectory(prefix="clcr-edge-voices-")
            data = Path(self._own_voices.name) / "espeak-ng-data"
            variants = data / "voices" / "!v"
            variants.mkdir(parents=True)
            for entry in system.iterdir():
                if entry.name != "voices":
                    (data / entry.name).symlink_to(entry)
            for entry in (system / "voices" / "!v").iterdir():
                (variants / entry.name).symlink_to(entry)
            self._library.espeak_Terminate()
            self._initialise(self._own_voices.name)
        (Path(self._own_voices.name) / "espeak-ng-data" / "voices" / "!v" / _DRAWN).write_text(text)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).astype(np.float32))
        i = 0
        while events[i].type != 0:
            event = events[i]
            if event.type in (_WORD, _PHONEME):
                name = event.string.decode("utf-8", "replace") if event.type == _PHONEME else ""
                self._events.append((event.type, event.text_position, event.sample, name))
            i += 1
        return 0

    def speak(self, words: tuple[str, ...], voice: Voice, separators: tuple[str, ...] = (), seed: int = 0) -> Speech:
        """Say `words`; `separators[i]` ("," for a pause) follows word i. UsageError where labels cannot be had.

        `seed` fixes the C library's random numbers, which some variants use (flutter, breath).
        """
        if (voice.name, voice.drawn) != self._voice:
            if voice.drawn:
                self._write_drawn(voice.drawn)
            if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise UsageError(f"espeak-ng has no voice {voice.name!r}: see espeak-ng --voices=en")
            self._voice = (voice.name, voice.drawn)
        for parameter, value in (
            (_RATE, voice.words_per_minute), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range), (_GAP, voice.gap)
        ):  # fmt: skip
            self._library.espeak_SetParameter(parameter, value, 0)
        marks = separators + ("",) * (len(words) - len(separators))
        starts, text = [], ""
        for word, mark in zip(words, marks, strict=True):
            starts.append(len(text) + 1)  # espeak-ng counts characters from 1
            text += word + mark + " "
        self._chunks, self._events = [], []
        self._libc.srand(seed)
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        samples = np.concatenate(self._chunks) / np.float32(32_768) if self._chunks else np.zeros(0, np.float32)
        return Speech(samples, self.rate_hz, words, self._segments(starts, len(samples)))

    def _segments(self, starts: list[int], total: int) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        word, seen = -1, 0
        phonemes = [event for event in self._events if event[0] == _PHONEME]
        ends = [event[2] for event in phonemes[1:]] + [total]
        position = iter(ends)
        for kind, text_position, sample, name in self._events:
            if kind == _WORD:
                if text_position == 0:  # the silence that ends a clause
                    continue
                if text_position not in starts:
                    raise UsageError(f"espeak-ng split a word at character {text_position}: no labels")
                word, seen = starts.index(text_position), seen + 1
                continue
            end = next(position)
            phone = name.strip("',%=|;")
            if phone and not phone.startswith("_") and word >= 0 and end > sample:
                segments.append(Segment(phone, word, sample / self.rate_hz, end / self.rate_hz))
        if seen != len(starts) or {s.word for s in segments} != set(range(len(starts))):
            raise UsageError(f"espeak-ng merged words: {seen} events for {len(starts)} words")
        return tuple(segments)


@lru_cache(maxsize=1)
def synthesiser() -> Synthesiser:
    """The process's only synthesiser. MissingPartError where espeak-ng is not installed."""
    return Synthesiser()
