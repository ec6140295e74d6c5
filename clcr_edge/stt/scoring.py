"""What a model directory makes of a recording, streamed through Vosk as live audio is, and how far that is from the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.errors import MissingPartError
from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.mel import RATE_HZ
from clcr_edge.stt.vocabulary import UNKNOWN

_CHUNK = RATE_HZ // 10


@dataclass(frozen=True)
class Heard:
    """A recognised word and its times in the recording."""

    text: str
    start_s: float
    end_s: float
    confidence: float


class Recogniser:
    """A Vosk model, asked whole recordings. MissingPartError where vosk is not installed."""

    def __init__(self, directory: Path) -> None:
        try:
            import vosk
        except ImportError as error:
            raise MissingPartError("vosk is not installed: pip install 'clcr-edge[audio]'") from error
        vosk.SetLogLevel(-2)  # errors only: Kaldi warns of every lattice that it prunes
        self._vosk: Any = vosk
        self._model = vosk.Model(str(directory))

    def listen(self, samples: FloatArray, grammar: Sequence[str] | None = None) -> list[Heard]:
        """float32 `[N]` at 16 kHz, in chunks of 100 ms -> all words of all results, `[unk]` included.

        `grammar`: the words that are possible (with `[unk]` or without); None for the whole vocabulary.
        """
        extra = () if grammar is None else (json.dumps(list(grammar)),)
        recogniser = self._vosk.KaldiRecognizer(self._model, RATE_HZ, *extra)
        recogniser.SetWords(True)
        pcm = np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2")
        heard: list[Heard] = []
        for first in range(0, len(pcm), _CHUNK):
            if recogniser.AcceptWaveform(pcm[first : first + _CHUNK].tobytes()):
                heard += _parse(recogniser.Result())
        return heard + _parse(recogniser.FinalResult())


def _parse(result: str) -> list[Heard]:
    words = json.loads(result).get("result", [])
    return [Heard(w["word"], float(w["start"]), float(w["end"]), float(w["conf"])) for w in words]


def known(heard: Sequence[Heard]) -> tuple[str, ...]:
    """The words without `[unk]`, however sure the recogniser is of them; a session is told fewer (`is_told`)."""
    return tuple(word.text for word in heard if word.text != UNKNOWN)


@dataclass(frozen=True)
class Errors:
    """Substitutions, deletions and insertions against `words` true words. Adds up."""

    words: int = 0
    substituted: int = 0
    deleted: int = 0
    inserted: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.words + other.words,
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
        )

    @property
    def accuracy(self) -> float:
        """1 - (S + D + I) / N; can be negative."""
        return 1.0 - (self.substituted + self.deleted + self.inserted) / max(self.words, 1)


def compare(truth: Sequence[str], found: Sequence[str]) -> Errors:
    """The fewest edits that turn `truth` into `found`."""
    rows = [Errors(len(truth), inserted=j) for j in range(len(found) + 1)]
    cost = lambda e: e.substituted + e.deleted + e.inserted  # noqa: E731
    for i, word in enumerate(truth, start=1):
        previous, rows = rows, [Errors(len(truth), deleted=i)]
        for j, other in enumerate(found, start=1):
            diagonal = previous[j - 1] + Errors(substituted=int(word != other))
            rows.append(min(diagonal, previous[j] + Errors(deleted=1), rows[-1] + Errors(inserted=1), key=cost))
    return rows[-1]
