"""Labelled streams as the packets that a session is given, and as the step inputs it makes of them, through the live ticker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from clcr_edge.config import StudentConfig
from clcr_edge.data.streams import Stream
from clcr_edge.packets import AudioChunk, VideoFrame, Word
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.session import Session, step_inputs
from clcr_edge.runtime.ticker import Ticker


@dataclass
class Packets:
    """What arrives in one tick."""

    frames: list[VideoFrame] = field(default_factory=list)
    chunks: list[AudioChunk] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)

    def into(self, sink: Ticker | Session) -> None:
        """Push all of it."""
        for frame in self.frames:
            sink.push_frame(frame)
        for chunk in self.chunks:
            sink.push_audio(chunk)
        for word in self.words:
            sink.push_word(word)


def packets_of(stream: Stream, config: StudentConfig, without: frozenset[str] = frozenset()) -> Iterator[Packets]:
    """One `Packets` per tick of a stream that starts at 0. without: modalities that are taken away."""
    tick_config = config.tick
    words = iter(zip(stream.word_ticks.tolist(), stream.words, strict=True))
    arriving = next(words, None)
    size = tick_config.samples
    for tick in range(len(stream.labels)):
        packets = Packets()
        if stream.vision_present[tick] and "vision" not in without:
            grey = stream.frames[tick]
            image = np.broadcast_to(grey[..., None], (*grey.shape, 3))
            packets.frames.append(VideoFrame(image, tick * tick_config.seconds, tick))
        if stream.audio_present[tick] and "audio" not in without:
            samples = stream.audio[tick * size : (tick + 1) * size]
            packets.chunks.append(AudioChunk(samples, tick_config.sample_rate_hz, tick * tick_config.seconds))
        while arriving is not None and arriving[0] <= tick:
            if "language" not in without:
                packets.words.append(arriving[1])
            arriving = next(words, None)
        yield packets


def inputs_of(stream: Stream, config: StudentConfig, without: frozenset[str] = frozenset()) -> Iterator[StepInputs]:
    """One `StepInputs` per tick of a stream. without: modalities ("vision", "audio", "language") that are taken away."""
    ticker = Ticker(config.tick)
    ticker.start(0.0)
    for packets in packets_of(stream, config, without):
        packets.into(ticker)
        yield step_inputs(ticker.cut(), config)
