"""What the rungs of a ladder save and lose: both by running sessions on them, as a live run does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clcr_edge.calibration.streams import packets_of
from clcr_edge.data.bank import NONE
from clcr_edge.data.streams import Stream
from clcr_edge.packets import AudioChunk, Modality, VideoFrame, Word
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.ladder import Ladder
from clcr_edge.runtime.session import Session
from clcr_edge.train.metrics import Metrics, Scorer, event_label

CAMERA = (480, 640)  # what a webcam gives unasked; making its frame small is part of a tick
_PERIOD = 8  # ticks: every rung's pattern of dear and cheap ticks fits in it
_WARM = 5


@dataclass(frozen=True)
class Judged:
    """One rung on labelled streams. A tick that is skipped has the label of the one before it.

    events: per event whether it was right. ticks: per tick. modality_weights: by modality, mean over ticks.
    """

    metrics: Metrics
    events: npt.NDArray[np.bool_]
    ticks: npt.NDArray[np.bool_]
    modality_weights: tuple[float, ...]

    def lost(self, full: Judged) -> tuple[float, float]:
        """Points of event and tick accuracy lost against another run of the same streams."""
        return (
            100.0 * float(full.events.mean() - self.events.mean()) if len(full.events) else 0.0,
            100.0 * float(full.ticks.mean() - self.ticks.mean()),
        )


def sessions_of(engine: Engine, ladder: Ladder) -> list[Session]:
    """One session held on each rung, rung 0 first, started at 0."""
    sessions = []
    for rung in range(len(ladder.rungs)):
        session = Session(engine, ladder)
        session.start(0.0)
        session.rung = rung
        sessions.append(session)
    return sessions


def judge(
    engine: Engine, ladder: Ladder, streams: Iterable[Stream], tell: Callable[[int], None] = lambda streams: None
) -> list[Judged]:
    """Run every rung over the same streams, in lockstep."""
    count = len(ladder.rungs)
    scorers = [Scorer(NONE) for _ in range(count)]
    events: list[list[bool]] = [[] for _ in range(count)]
    right: list[list[npt.NDArray[np.bool_]]] = [[] for _ in range(count)]
    weights: list[list[list[float]]] = [[] for _ in range(count)]
    classes = {name: i for i, name in enumerate(engine.config.classes)}
    for index, stream in enumerate(streams):
        tell(index)
        sessions = sessions_of(engine, ladder)
        said = np.full((count, stream.ticks), NONE, np.int64)
        for tick, packets in enumerate(packets_of(stream, engine.config)):
            for rung, session in enumerate(sessions):
                packets.into(session)
                if session.due:
                    prediction = session.step()
                    said[rung, tick] = classes[prediction.label]
                    weights[rung].append([prediction.modality_weights[m.key] for m in Modality])
                else:
                    session.skip()
                    said[rung, tick] = said[rung, max(tick - 1, 0)]
        for rung in range(count):
            scorers[rung].add(stream.labels, said[rung], stream.events)
            events[rung] += [event_label(said[rung, e.onset : e.end], NONE) == e.label for e in stream.events]
            right[rung].append(said[rung] == stream.labels)
    return [
        Judged(
            scorers[r].result(),
            np.array(events[r], np.bool_),
            np.concatenate(right[r]),
            tuple(float(w) for w in np.mean(weights[r], axis=0)),
        )
        for r in range(count)
    ]


def tick_seconds(engine: Engine, ladder: Ladder, rounds: int = 30) -> npt.NDArray[np.float64]:
    """Seconds `[rungs, _PERIOD]` of the ticks of each rung's pattern: all that a session does, its frame made small and its
    sound analysed.

    Interleaved in this thread, in turning order; the median of each tick of the pattern over the rounds.
    """
    rng = np.random.default_rng(0)
    config = engine.config.tick
    image = rng.integers(0, 256, (*CAMERA, 3), dtype=np.uint8)
    samples = (0.1 * rng.standard_normal(config.samples)).astype(np.float32)
    sessions = sessions_of(engine, ladder)
    taken = np.empty((len(sessions), rounds, _PERIOD))
    order = list(range(len(sessions)))
    for turn in range(rounds + _WARM):
        for rung in order[turn % len(order) :] + order[: turn % len(order)]:
            session = sessions[rung]
            for place in range(_PERIOD):
                tick = turn * _PERIOD + place
                at_s = tick * config.seconds
                session.push_frame(VideoFrame(image, at_s, tick))
                session.push_audio(AudioChunk(samples, config.sample_rate_hz, at_s))
                if tick % 15 == 0:
                    session.push_word(Word("seven", at_s - 0.3, at_s))
                begun = time.perf_counter()
                if session.due:
                    session.step()
                else:
                    session.skip()
                if turn >= _WARM:
                    taken[rung, turn - _WARM, place] = time.perf_counter() - begun
    return np.asarray(np.median(taken, axis=1))
