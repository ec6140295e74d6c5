"""Labelled streams as the step inputs a session would make of them, through the live ticker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clcr_edge.config import StudentConfig
from clcr_edge.data.streams import Stream
from clcr_edge.packets import AudioChunk, VideoFrame
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.session import step_inputs
from clcr_edge.runtime.ticker import Ticker


def inputs_of(stream: Stream, config: StudentConfig, without: frozenset[str] = frozenset()) -> Iterator[StepInputs]:
    """One `StepInputs` per tick of a stream. without: modalities ("vision", "audio", "language") that are taken away."""
    tick_config = config.tick
    ticker = Ticker(tick_config)
    ticker.start(0.0)
    words = iter(zip(stream.word_ticks.tolist(), stream.words, strict=True))
    arriving = next(words, None)
    size = tick_config.samples
    for tick in range(len(stream.labels)):
        if stream.vision_present[tick] and "vision" not in without:
            grey = stream.frames[tick]
            image = np.broadcast_to(grey[..., None], (*grey.shape, 3))
            ticker.push_frame(VideoFrame(image, tick * tick_config.seconds, tick))
        if stream.audio_present[tick] and "audio" not in without:
            samples = stream.audio[tick * size : (tick + 1) * size]
            ticker.push_audio(AudioChunk(samples, tick_config.sample_rate_hz, tick * tick_config.seconds))
        while arriving is not None and arriving[0] <= tick:
            if "language" not in without:
                ticker.push_word(arriving[1])
            arriving = next(words, None)
        yield step_inputs(ticker.cut(), config)
