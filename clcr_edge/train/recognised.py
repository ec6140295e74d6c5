"""Streams with the words that a real recogniser makes of their sound, in place of the simulated ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.streams import RATE_TICKS_HZ, Ears, Stream
from clcr_edge.packets import AudioChunk, FloatArray, Word
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.speech import Recogniser

_TICK = RATE_HZ // RATE_TICKS_HZ


def ears_of(model: Path) -> Ears:
    """A Vosk model as `clcr_edge.data.streams.compose` takes it. Raises as `Recogniser` does."""
    return partial(_listened, Recogniser(model, check=model != default_speech_model()))


def _listened(recogniser: Recogniser, audio: FloatArray, ticks: Iterable[int] | None = None) -> list[tuple[int, Word]]:
    """The words in some sound, each with the tick after the sound that brought it forth, as in a file replay. ticks: those that
    have sound, None for all."""
    recogniser.reset()
    total = len(audio) // _TICK
    found = []
    for tick in range(total) if ticks is None else ticks:
        words = recogniser.push(AudioChunk(audio[tick * _TICK : (tick + 1) * _TICK], RATE_HZ, tick / RATE_TICKS_HZ))
        found += [(tick + 1, word) for word in words if tick + 1 < total]
    recogniser.reset()
    return found


def recognised(stream: Stream, recogniser: Recogniser) -> Stream:
    """The stream with `words` and `word_ticks` by the recogniser.

    Labels and events stay: they say what was shown and said, not what was understood. Sound that is missing is not listened to.
    """
    found = _listened(recogniser, stream.audio, np.flatnonzero(stream.audio_present).tolist())
    ticks = np.asarray([tick for tick, _ in found], np.int64)
    return dataclasses.replace(stream, words=tuple(word for _, word in found), word_ticks=ticks)
