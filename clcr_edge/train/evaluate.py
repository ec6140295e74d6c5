"""Runs an engine over labelled streams, tick by tick, as a live session would, and scores what it says. No torch.

Streams are independent, so they are shared out over processes; the result does not depend on how many.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clcr_edge.calibration.streams import inputs_of
from clcr_edge.config import StudentConfig
from clcr_edge.data.bank import NONE, DigitBank, load_bank
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.seen import Seen
from clcr_edge.data.streams import Ears, Event, Stream, make_stream, negative_stream
from clcr_edge.data.synthetic import synthetic_bank, with_other_speech
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import FalseEvents, IntArray, Metrics, Scorer, count_false_events
from clcr_edge.train.streaming import Delay, existing

STREAM_S = 60.0


@dataclass(frozen=True)
class Judged:
    """One stream as far as scoring needs it."""

    labels: IntArray
    predicted: tuple[IntArray, ...]  # one per set of modalities left out
    events: tuple[Event, ...]
    steps_s: npt.NDArray[np.float64]  # seconds of each engine step, for the first of them


@dataclass(frozen=True)
class Streamed:
    """Plain scores, the same with latency counted (see `clcr_edge.train.streaming`), and the mean latency that counted."""

    plain: Metrics
    streaming: Metrics
    latency_ms: float


def predict(engine: Engine, stream: Stream, without: frozenset[str] = frozenset()) -> IntArray:
    """The label that the engine gives each tick of a stream, int64 `[T]`."""
    return timed(engine, stream, without)[0]


def timed(
    engine: Engine, stream: Stream, without: frozenset[str] = frozenset()
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """The label that the engine gives each tick, int64 `[T]`, and the seconds that each of its steps took, float64 `[T]`."""
    state = engine.initial_state()
    said, steps_s = np.empty(stream.ticks, np.int64), np.empty(stream.ticks)
    for tick, inputs in enumerate(inputs_of(stream, engine.config, without)):
        begun = time.perf_counter()
        outputs, state = engine.step(inputs, state)
        steps_s[tick] = time.perf_counter() - begun
        said[tick] = int(np.argmax(outputs.probs))
    return said, steps_s


def score(engine: Engine, streams: Iterable[Stream], without: frozenset[str] = frozenset()) -> Metrics:
    """Scores over some streams, in this process."""
    scorer = Scorer(NONE)
    for stream in streams:
        scorer.add(stream.labels, predict(engine, stream, without), stream.events)
    return scorer.result()


@dataclass(frozen=True)
class Subject:
    """What is evaluated, as other processes can open it: the step graph's bytes and its configuration."""

    graph: bytes
    config: StudentConfig
    precision: str

    def open(self) -> Engine:
        """An engine of one thread."""
        return OnnxEngine(self.graph, self.config, self.precision)


@dataclass(frozen=True)
class Material:
    """What it is evaluated on. root: a folder of MNIST and FSDD files; None: the project's own check part.
    seen: what training saw, left out of it. listener: a Vosk model that says which words are heard; None: simulated ones."""

    root: Path | None
    seen: Seen | None
    listener: Path | None = None

    def bank(self) -> tuple[DigitBank, str]:
        """The bank, and a line that says what it is."""
        own = synthetic_bank("check")
        if self.root is None:
            line = f"the project's own check part: {len(own.images)} drawn images, {len(set(own.speakers))} synthetic voices"
            return own, line
        bank = load_bank(self.root)
        fresh, line = self.seen.unseen(bank) if self.seen else (bank, "all of it (what training saw is not known)")
        return with_other_speech(fresh, "test"), line


_worker: dict[str, object] = {}


def _start(subject: Subject, material: Material) -> None:
    keep_memory()
    _worker["engine"], _worker["bank"] = subject.open(), material.bank()[0]
    if material.listener is not None:
        from clcr_edge.runtime.speech import Recogniser

        _worker["listener"] = Recogniser(material.listener, check=False)  # the caller has tried it


def _judge(job: Callable[[DigitBank, int], Stream], without: Sequence[frozenset[str]], index: int) -> Judged:
    engine, bank = _worker["engine"], _worker["bank"]
    assert isinstance(bank, DigitBank)
    stream = job(bank, index)
    if "listener" in _worker:
        from clcr_edge.train.recognised import recognised

        stream = recognised(stream, _worker["listener"])  # type: ignore[arg-type]
    rows = [timed(engine, stream, w) for w in without]  # type: ignore[arg-type]
    return Judged(stream.labels, tuple(said for said, _ in rows), stream.events, rows[0][1])


def _mix(seed: int, index: int) -> int:
    """The seed of stream `index`: the same stream whatever process makes it."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def event_stream(conditions: Conditions, seed: int, bank: DigitBank, index: int, ears: Ears | None = None) -> Stream:
    """Stream `index` of an evaluation: the same for every model. ears: who listens to it, None for simulated words."""
    return make_stream(bank, conditions, STREAM_S, _mix(seed, index), ears=ears)


def quiet_stream(seed: int, bank: DigitBank, index: int, ears: Ears | None = None) -> Stream:
    """The same without any digit."""
    return negative_stream(STREAM_S, _mix(seed, index), bank, ears=ears)


class Evaluation:
    """A pool of processes with the subject and the material loaded once; several measurements can be made with it."""

    def __init__(self, subject: Subject, material: Material, jobs: int | None = None) -> None:
        self.jobs = jobs or min(8, os.cpu_count() or 1)
        # One process a core: a second BLAS thread in each would only spin. The workers read this before they load numpy.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self.jobs, mp_context=context, initializer=_start, initargs=(subject, material))

    def __enter__(self) -> Evaluation:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def events(
        self,
        conditions: Conditions,
        count: int,
        seed: int,
        without: frozenset[str] = frozenset(),
        tell: Callable[[int], None] = lambda events: None,
    ) -> Metrics:
        """Scores over at least `count` events."""
        return self.rows(conditions, count, seed, [without], tell)[0]

    def rows(
        self,
        conditions: Conditions,
        count: int,
        seed: int,
        without: Sequence[frozenset[str]],
        tell: Callable[[int], None] = lambda events: None,
    ) -> list[Metrics]:
        """Scores over the same streams, of at least `count` events, once for each set of modalities left out."""
        scorers, found = [Scorer(NONE) for _ in without], 0
        for judged in self._in_order(partial(_judge, partial(event_stream, conditions, seed), without)):
            for scorer, predicted in zip(scorers, judged.predicted, strict=True):
                scorer.add(judged.labels, predicted, judged.events)
            found += len(judged.events)
            tell(found)
            if found >= count:
                break
        return [scorer.result() for scorer in scorers]

    def streamed(
        self,
        conditions: Conditions,
        count: int,
        seed: int,
        delay: Delay,
        without: frozenset[str] = frozenset(),
        tell: Callable[[int], None] = lambda events: None,
    ) -> Streamed:
        """Scores over at least `count` events, plain and with latency counted. For measured steps use one process: others
        beside it make each step slower than it is alone."""
        plain, late, spent_s, ticks, found = Scorer(NONE), Scorer(NONE), 0.0, 0, 0
        for judged in self._in_order(partial(_judge, partial(event_stream, conditions, seed), [without])):
            steps_s, said = delay.steps_s(judged.steps_s), judged.predicted[0]
            plain.add(judged.labels, said, judged.events)
            late.add(judged.labels, existing(said, steps_s, delay.capture_ms / 1e3, NONE), judged.events)
            spent_s, ticks, found = spent_s + float(steps_s.sum()), ticks + len(said), found + len(judged.events)
            tell(found)
            if found >= count:
                break
        return Streamed(plain.result(), late.result(), spent_s / ticks * 1e3 + delay.capture_ms)

    def negatives(self, minutes: float, seed: int) -> FalseEvents:
        """False events on generated streams that hold no digit."""
        job = partial(_judge, partial(quiet_stream, seed), [frozenset()])
        streams = []
        for judged in self._in_order(job):
            streams.append(judged.predicted[0])
            if len(streams) * STREAM_S >= minutes * 60.0:
                break
        return count_false_events(streams, NONE)

    def _in_order(self, job: Callable[[int], Judged]) -> Iterator[Judged]:
        """Results 0, 1, 2, ... with a few made ahead. Raises `ClcrEdgeError` if a process was ended from outside."""
        try:
            ahead = [self._pool.submit(job, i) for i in range(self.jobs + 1)]
            index = len(ahead)
            while True:
                yield ahead.pop(0).result()
                ahead.append(self._pool.submit(job, index))
                index += 1
        except BrokenProcessPool:
            raise ClcrEdgeError(
                f"one of {self.jobs} processes of the evaluation was ended from outside, or could not start (out of memory?); "
                "nothing was scored. Try again with fewer --jobs"
            ) from None
