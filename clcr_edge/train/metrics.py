"""Scores of predictions on labelled streams: per tick, per event, how soon, and how often for nothing. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

TICK_S = 0.04
MERGE_S = 0.4
IntArray = npt.NDArray[np.int64]


class LabelledEvent(Protocol):
    """What scoring needs of an event; ticks, labelled in [onset, end)."""

    @property
    def label(self) -> int: ...
    @property
    def onset(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True)
class Metrics:
    """Scores over many streams; accuracies 0..1, NaN where there was nothing to score.

    tick_macro_f1: mean over the classes that occur in truth or prediction. time_to_first_correct_s: median, from
    onset to the end of the first tick with the right label, over the events that had one; never_correct: the share
    that had none.
    """

    tick_accuracy: float
    tick_macro_f1: float
    event_accuracy: float
    time_to_first_correct_s: float
    never_correct: float
    n_ticks: int
    n_events: int

    def to_json(self) -> dict[str, float | int | None]:
        """The fields by name; NaN becomes None, because JSON knows no NaN."""
        return {
            k: None if isinstance(v, float) and np.isnan(v) else v
            for k, v in ((f, getattr(self, f)) for f in self.__dataclass_fields__)
        }


def macro_f1(truth: IntArray, predicted: IntArray) -> float:
    """Mean F1 over the classes that occur in truth or prediction; NaN without ticks."""
    if not len(truth):
        return float("nan")
    size = int(max(truth.max(), predicted.max())) + 1
    hit = np.bincount(truth[truth == predicted], minlength=size)
    both = np.bincount(truth, minlength=size) + np.bincount(predicted, minlength=size)
    there = both > 0
    return float(np.mean(2.0 * hit[there] / both[there]))


def event_label(predicted: IntArray, none: int) -> int:
    """The commonest label other than none in a run of ticks; ties go to the one seen first; all none stays none."""
    said = predicted[predicted != none]
    if not len(said):
        return none
    labels, first, counts = np.unique(said, return_index=True, return_counts=True)
    best = np.flatnonzero(counts == counts.max())
    return int(labels[best[np.argmin(first[best])]])


def first_correct(predicted: IntArray, event: LabelledEvent) -> float | None:
    """Seconds from the event's onset to the end of its first tick with the right label; None if there is none."""
    right = np.flatnonzero(predicted[event.onset : event.end] == event.label)
    return float((right[0] + 1) * TICK_S) if len(right) else None


def false_events(predicted: IntArray, none: int, merge_s: float = MERGE_S) -> int:
    """Maximal runs of ticks other than none; runs less than `merge_s` apart are one. For streams without events."""
    said = np.flatnonzero(predicted != none)
    if not len(said):
        return 0
    # Between two runs lie diff - 1 ticks of none.
    return int(1 + np.count_nonzero((np.diff(said) - 1) * TICK_S >= merge_s - 1e-9)) if len(said) > 1 else 1


class Scorer:
    """Collects streams one at a time, so that no frames need be kept.

    none: the label of "nothing there".
    """

    def __init__(self, none: int) -> None:
        self._none = none
        self._truth: list[IntArray] = []
        self._predicted: list[IntArray] = []
        self._right: list[bool] = []
        self._first: list[float] = []

    def add(self, labels: IntArray, predicted: IntArray, events: Iterable[LabelledEvent]) -> None:
        """One stream: true and predicted labels, int `[T]` each, and its events."""
        if labels.shape != predicted.shape or labels.ndim != 1:
            raise ValueError(f"labels {labels.shape} and predictions {predicted.shape}: give one per tick, alike")
        self._truth.append(np.asarray(labels, np.int64))
        self._predicted.append(np.asarray(predicted, np.int64))
        for event in events:
            self._right.append(event_label(predicted[event.onset : event.end], self._none) == event.label)
            soon = first_correct(predicted, event)
            if soon is not None:
                self._first.append(soon)

    def result(self) -> Metrics:
        """Scores over everything added so far."""
        truth = np.concatenate([np.empty(0, np.int64), *self._truth])
        predicted = np.concatenate([np.empty(0, np.int64), *self._predicted])
        nan, count = float("nan"), len(self._right)
        return Metrics(
            tick_accuracy=float(np.mean(truth == predicted)) if len(truth) else nan,
            tick_macro_f1=macro_f1(truth, predicted),
            event_accuracy=float(np.mean(self._right)) if count else nan,
            time_to_first_correct_s=float(np.median(self._first)) if self._first else nan,
            never_correct=1.0 - len(self._first) / count if count else nan,
            n_ticks=len(truth),
            n_events=count,
        )


@dataclass(frozen=True)
class FalseEvents:
    """False events on streams that hold none. minutes: how long was listened and looked."""

    count: int
    minutes: float

    @property
    def per_minute(self) -> float:
        """NaN where nothing was watched."""
        return self.count / self.minutes if self.minutes else float("nan")


def count_false_events(streams: Sequence[IntArray], none: int) -> FalseEvents:
    """False events over several streams of predictions, int `[T]` each; runs are never merged across streams."""
    ticks = sum(len(p) for p in streams)
    return FalseEvents(sum(false_events(p, none) for p in streams), ticks * TICK_S / 60.0)
