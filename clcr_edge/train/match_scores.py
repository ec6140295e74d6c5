"""Scores on `digits-match`: per tick, and whether same and different are told apart where both were seen and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import DigitBank
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.match import Match, make_match_stream
from clcr_edge.data.streams import Event
from clcr_edge.errors import UsageError
from clcr_edge.model.student import NEVER, TickBatch
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.train.batches import collate
from clcr_edge.train.digits_teacher import WINDOW, predict_ticks
from clcr_edge.train.evaluate import STREAM_S, Material
from clcr_edge.train.loop import hash_seed
from clcr_edge.train.match_pool import PIECE
from clcr_edge.train.match_start import encode_fronted, fronted
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import IntArray, Metrics, Scorer
from clcr_edge.train.teacher_checkpoint import load_teacher

TASK = "digits-match"
VERDICTS = (int(Match.SAME), int(Match.DIFFERENT))


@dataclass(frozen=True)
class MatchMetrics:
    """plain: per tick, and per event of any kind. The rest is over the n_matches events in which both were perceived, and reads
    the ticks in which both are known. NaN where there was none.

    match_accuracy: the share whose commoner answer of same and different is right (the earlier one where they tie); chance is a
    half for who answers at all. undecided: the share that were called neither in any of these ticks; they count as wrong.
    same_recall, different_recall: match_accuracy of either kind.
    """

    plain: Metrics
    match_accuracy: float
    undecided: float
    same_recall: float
    different_recall: float
    n_matches: int

    def to_json(self) -> dict[str, float | int | None]:
        """The fields by name, the plain ones among them; NaN becomes None."""
        own = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "plain"}
        return self.plain.to_json() | {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in own.items()}


def verdict(predicted: IntArray) -> int:
    """The commoner of same and different in a run of ticks, the earlier where they tie; `Match.NONE` if it is never either."""
    said = predicted[np.isin(predicted, VERDICTS)]
    if not len(said):
        return int(Match.NONE)
    return int(max(VERDICTS, key=lambda v: (np.count_nonzero(said == v), v == said[0])))


class MatchScorer:
    """Collects streams one at a time."""

    def __init__(self) -> None:
        self._plain = Scorer(int(Match.NONE))
        self._verdicts: list[tuple[int, int]] = []

    def add(self, labels: IntArray, predicted: IntArray, events: tuple[Event, ...]) -> None:
        """One stream: true and predicted labels, int `[T]` each, and its events."""
        self._plain.add(labels, predicted, events)
        self._verdicts += [(e.label, verdict(predicted[e.onset : e.end])) for e in events if e.label in VERDICTS]

    @property
    def matches(self) -> int:
        """Events so far in which both were perceived."""
        return len(self._verdicts)

    def result(self) -> MatchMetrics:
        """Scores over everything added so far."""
        truth, found = np.array(self._verdicts, np.int64).reshape(-1, 2).T

        def share(right: IntArray, rows: np.ndarray) -> float:
            return float(np.mean(right[rows])) if rows.any() else float("nan")

        right = (truth == found).astype(np.int64)
        everything = np.ones(len(truth), bool)
        return MatchMetrics(
            plain=self._plain.result(),
            match_accuracy=share(right, everything),
            undecided=share((found == Match.NONE).astype(np.int64), everything),
            same_recall=share(right, truth == Match.SAME),
            different_recall=share(right, truth == Match.DIFFERENT),
            n_matches=len(truth),
        )


class ReadStream(NamedTuple):
    """A stream that `fronted` has read, batch of one; its labels int64 `[T]` and its events."""

    batch: TickBatch
    labels: IntArray
    events: tuple[Event, ...]


def read_streams(teacher: Teacher, bank: DigitBank, conditions: Conditions, seed: int) -> Iterator[ReadStream]:
    """Endless evaluation streams of a minute; stream `i` depends on (bank, conditions, seed, i) and on the front ends alone."""
    index = 0
    while True:
        stream = make_match_stream(bank, conditions, STREAM_S, hash_seed(seed, index, 11))
        yield ReadStream(fronted(teacher, collate([stream], TickConfig())), stream.labels, stream.events)
        index += 1


def predict_match(teacher: Teacher, batch: TickBatch, window: int = WINDOW, without: frozenset[str] = frozenset()) -> IntArray:
    """The label of every tick of a batch that `fronted` made, int64 `[B, T]`. without: modalities taken away."""
    nothing = torch.zeros_like(batch.vision)
    taken = TickBatch(
        frames=batch.frames,
        vision=nothing if "vision" in without else batch.vision,
        fbank=batch.fbank,
        audio=nothing if "audio" in without else batch.audio,
        ngrams=batch.ngrams,
        confidence=batch.confidence,
        word_tick=torch.full_like(batch.word_tick, NEVER) if "language" in without else batch.word_tick,
        word_age=batch.word_age,
    )
    rate_hz = TickConfig().rate_hz
    found = predict_ticks(teacher, taken, window, rate_hz, PIECE / rate_hz, partial(encode_fronted, teacher))
    labels: IntArray = found.numpy()
    return labels


def open_match(folder: Path) -> tuple[Teacher, int]:
    """A network trained on the task, and the ticks that it pools. Raises `UsageError` for one of another task."""
    teacher, table = load_teacher(folder)
    training = table.get("training", {})
    if training.get("task") != TASK:
        known = training.get("task") or training.get("data")
        raise UsageError(f"--data {TASK}: {folder} was trained on {known}; give --data {known}")
    return teacher, int(table["stream"]["window"])


def judge_match(
    folder: Path,
    material: Material,
    conditions: Conditions,
    matches: int,
    seed: int,
    without: frozenset[str],
    tell: Callable[[int], None] = lambda matches: None,
) -> tuple[MatchMetrics, str]:
    """Scores over streams with at least `matches` events in which both were perceived, and the variant's name."""
    keep_memory()
    teacher, window = open_match(folder)
    bank, _ = material.bank()
    scorer = MatchScorer()
    for stream in read_streams(teacher, bank, conditions, seed):
        scorer.add(stream.labels, predict_match(teacher, stream.batch, window, without)[0], stream.events)
        tell(scorer.matches)
        if scorer.matches >= matches:
            break
    return scorer.result(), teacher.config.variant
