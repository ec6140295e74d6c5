"""Streaming accuracy with latencies whose cost can be counted by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clcr_edge.cli import main
from clcr_edge.data import Event
from clcr_edge.data.bank import NONE
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.streams import make_stream
from clcr_edge.train import evaluate
from clcr_edge.train.evaluate import Evaluation, Judged, Material, Subject, timed
from clcr_edge.train.metrics import Scorer
from clcr_edge.train.streaming import Delay, existing

LABELS = np.array([NONE, NONE, 3, 3, 3, 3, NONE, NONE, 7, 7, NONE, NONE], np.int64)


def shifted(ticks: int) -> np.ndarray:
    return np.concatenate([np.full(ticks, NONE, np.int64), LABELS])[: len(LABELS)]


@pytest.mark.parametrize(
    ("step_ms", "capture_ms", "ticks"),
    [(0, 0, 0), (1, 0, 1), (40, 0, 1), (40.001, 0, None), (20, 20, 1), (20, 21, 2), (0, 80, 2), (0, 80.1, 3), (5, 400, 11)],
)
def test_a_constant_latency_is_a_shift(step_ms: float, capture_ms: float, ticks: int | None) -> None:
    steps_s = Delay(step_ms, capture_ms).steps_s(np.full(len(LABELS), 9.9))
    got = existing(LABELS, steps_s, capture_ms / 1e3, NONE)
    if ticks is None:  # slower than the ticks come, if by a microsecond: from the first on it is a tick later
        ticks = 2
    np.testing.assert_array_equal(got, shifted(ticks))


def test_steps_longer_than_a_tick_fall_behind_more_and_more() -> None:
    got = existing(np.arange(12), np.full(12, 0.060), 0.0, NONE)
    # Done at 0.10, 0.16, 0.22, ...: at 0.12 the first is there, at 0.16 the second.
    np.testing.assert_array_equal(got, [NONE, NONE, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6])


def test_one_slow_step_delays_those_behind_it_until_they_have_caught_up() -> None:
    steps_s = np.full(8, 0.010)
    steps_s[2] = 0.100  # from 0.12 on; done at 0.22, the next at 0.23, 0.24, 0.25, then as ever
    np.testing.assert_array_equal(existing(np.arange(8), steps_s, 0.0, NONE), [NONE, 0, 1, 1, 1, 4, 5, 6])


def test_what_it_costs() -> None:
    event = [Event(3, 2, 3, 6), Event(7, 8, 9, 10)]
    scores = []
    for ms in (0, 40, 80, 160):
        scorer = Scorer(NONE)
        scorer.add(LABELS, existing(LABELS, np.zeros(12), ms / 1e3, NONE), event)
        scores.append(scorer.result())
    assert [s.tick_accuracy for s in scores] == pytest.approx([1.0, 8 / 12, 4 / 12, 4 / 12])
    assert [s.event_accuracy for s in scores] == [1.0, 1.0, 0.5, 0.0]


def test_eval_tells_the_streaming_scores(
    proof_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stream of an evaluation is a minute long; two seconds will do to see that the scores get through.
    monkeypatch.setattr(evaluate, "Evaluation", Here)
    options = ["--events", "1", "--latency-ms", "30", "--capture-ms", "60", "--json"]
    monkeypatch.setattr(sys, "argv", ["clcr-edge", "eval", str(proof_bundle), *options])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert left.value.code == 0, err
    found = json.loads(out)
    assert (found["latency_ms"], found["step_latency_ms"], found["capture_latency_ms"]) == (pytest.approx(90.0), 30.0, 60.0)
    assert {"tick_accuracy", "streaming_tick_accuracy", "event_accuracy", "streaming_event_accuracy"} <= found.keys()
    said = Here.judged.predicted[0]
    late = np.concatenate([np.full(3, NONE), said[:-3]])
    assert found["tick_accuracy"] == np.mean(said == Here.judged.labels)
    assert found["streaming_tick_accuracy"] == np.mean(late == Here.judged.labels)


class Here(Evaluation):
    """An evaluation of one stream of two seconds, in this process."""

    judged: Judged

    def __init__(self, subject: Subject, material: Material, jobs: int | None = None) -> None:
        stream = make_stream(material.bank()[0], Conditions(), 2.0, 0)
        said, steps_s = timed(subject.open(), stream)
        assert len(said) == len(steps_s) == 50
        assert (steps_s > 1e-5).all()
        event = Event(int(stream.labels[-1]), 0, 1, 50)
        Here.judged = Judged(stream.labels, (said,), (event,), steps_s)

    def __exit__(self, *_: object) -> None:
        pass

    def _in_order(self, job: Any) -> Iterator[Judged]:
        yield Here.judged


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--latency-ms", "soon"], "--latency-ms soon: give 0 to 10000 milliseconds, or measured"),
        (["--latency-ms=-1"], "--latency-ms -1"),
        (["--capture-ms", "nan"], "--capture-ms nan"),
        (["--latency-ms", "5", "--data", "crema-d"], "are for students on streams of digits"),
    ],
)
def test_a_wrong_latency_is_one_line(
    options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["clcr-edge", "eval", str(tmp_path), *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
