"""Streams with the words that a real recogniser makes of their sound, in place of the simulated ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.streams import RATE_TICKS_HZ, Stream
from clcr_edge.packets import AudioChunk, Word
from clcr_edge.runtime.speech import Recogniser


def recognised(stream: Stream, recogniser: Recogniser) -> Stream:
    """The stream with `words` and `word_ticks` by the recogniser.

    Each word enters the tick after the sound that brought it forth, as in a file replay. Labels and events stay: they say what
    was shown and said, not what was understood. Sound that is missing is not listened to.
    """
    recogniser.reset()
    size = RATE_HZ // RATE_TICKS_HZ
    words: list[Word] = []
    ticks: list[int] = []
    for tick in np.flatnonzero(stream.audio_present).tolist():
        samples = stream.audio[tick * size : (tick + 1) * size]
        found = recogniser.push(AudioChunk(samples, RATE_HZ, tick / RATE_TICKS_HZ))
        if tick + 1 < stream.ticks:
            words += found
            ticks += [tick + 1] * len(found)
    recogniser.reset()
    return dataclasses.replace(stream, words=tuple(words), word_ticks=np.asarray(ticks, np.int64))
