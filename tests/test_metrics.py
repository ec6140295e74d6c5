"""Metrics on cases small enough to count by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clcr_edge.data import Event
from clcr_edge.train.metrics import Scorer, count_false_events, event_label, false_events, first_correct, macro_f1

N = 10


def _ticks(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def test_event_label_is_the_commonest_other_than_none() -> None:
    assert event_label(_ticks(N, N, N, 3, 4, 4), N) == 4
    assert event_label(_ticks(N, N), N) == N
    assert event_label(_ticks(), N) == N


def test_ties_go_to_the_earliest() -> None:
    assert event_label(_ticks(7, 2, 2, 7, N), N) == 7
    assert event_label(_ticks(N, 2, 7, 7, 2), N) == 2


def test_first_correct() -> None:
    event = Event(5, 2, 4, 8)
    assert first_correct(_ticks(5, 5, N, 4, 5, 5, 5, 5, 5), event) == pytest.approx(0.12)
    assert first_correct(_ticks(5, 5, 5, N, N, N, N, N, 5), event) == pytest.approx(0.04)
    assert first_correct(_ticks(5, 5, N, N, N, N, N, N, 5), event) is None


def test_macro_f1() -> None:
    # Class 0: 1 hit of 2 true and 1 predicted: 2/3. Class 1: 2 hits of 2 true and 3 predicted: 4/5.
    assert macro_f1(_ticks(0, 0, 1, 1), _ticks(0, 1, 1, 1)) == pytest.approx((2 / 3 + 4 / 5) / 2)
    # A class that occurs in neither does not count; one that is only predicted counts with 0.
    assert macro_f1(_ticks(3, 3), _ticks(3, 5)) == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(macro_f1(_ticks(), _ticks()))


def test_scorer() -> None:
    scorer = Scorer(N)
    labels = np.full(20, N, np.int64)
    labels[2:8], labels[10:16] = 4, 6
    events = [Event(4, 2, 4, 8), Event(6, 10, 12, 16)]
    guess = np.full(20, N, np.int64)
    guess[4:8] = 4  # right, two ticks late
    guess[10:12], guess[12] = 9, 6  # wrong by the majority, though right once
    scorer.add(labels, guess, events)
    scorer.add(_ticks(N, 1, 1), _ticks(N, N, N), [Event(1, 1, 2, 3)])  # silence is wrong
    result = scorer.result()
    assert (result.n_ticks, result.n_events) == (23, 3)
    assert result.event_accuracy == pytest.approx(1 / 3)
    assert result.tick_accuracy == pytest.approx((8 + 4 + 1 + 1) / 23)
    assert result.time_to_first_correct_s == pytest.approx(0.12)
    assert result.never_correct == pytest.approx(1 / 3)
    assert set(json.loads(json.dumps(result.to_json()))) >= {
        "tick_accuracy",
        "tick_macro_f1",
        "event_accuracy",
        "time_to_first_correct_s",
        "n_ticks",
        "n_events",
    }


def test_nothing_to_score() -> None:
    result = Scorer(N).result()
    assert math.isnan(result.event_accuracy)
    assert result.to_json()["event_accuracy"] is None
    assert result.n_events == 0


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="one per tick"):
        Scorer(N).add(_ticks(1, 2), _ticks(1), [])


def test_false_events() -> None:
    guess = np.full(100, N, np.int64)
    assert false_events(guess, N) == 0
    guess[10:12] = 3
    assert false_events(guess, N) == 1
    guess[21] = 3  # nine ticks of none between: 0.36 s, one event
    assert false_events(guess, N) == 1
    guess[32] = 5  # ten ticks between: 0.4 s, not closer than that
    assert false_events(guess, N) == 2
    guess[33:50] = 7  # a change of mind within a run is no new event
    assert false_events(guess, N) == 2


def test_false_events_per_minute() -> None:
    quiet, noisy = np.full(750, N, np.int64), np.full(750, N, np.int64)
    noisy[0], noisy[-1], quiet[0] = 1, 2, 3
    result = count_false_events([noisy, quiet], N)
    assert (result.count, result.minutes, result.per_minute) == (3, 1.0, 3.0)
    assert math.isnan(count_false_events([], N).per_minute)
