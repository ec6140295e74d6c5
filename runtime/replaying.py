"""Runs a recording again, on the bundle it was made with or on another one, and compares tick by tick.

The session gets the same calls in the same order with the same stamps: what came late comes late again. So the same bundle on
the same machine gives the same predictions, to the last bit. Another processor, or another version of ONNX Runtime, may add up
in another order, and differ in the last bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clcr_edge.errors import RecordingError, StreamError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.recorder import plain
from clcr_edge.runtime.recording import Recording
from clcr_edge.runtime.session import Session

# The fields of a prediction that follow from what the session was given. The others tell of the device, not of the media.
REPLAYED = (
    *("t_s", "tick", "label", "probs", "ready", "level_weights", "modality_weights", "private_gates", "participation"),
    *("age_s", "frame_seq", "skew_ms"),
)
OF_THE_DEVICE = ("latency_ms", "drift_ppm", "sources", "rung")
_MOST_RUNS = 10


@dataclass(frozen=True)
class Compared:
    """One prediction, then and now. words, lost: the words told, and the frames that the recording lacks, since the prediction
    before: in its own tick and in those passed over, of which there were `passed_over`. max_difference: of the probabilities of
    the classes that both know; infinite for NaN on one side."""

    prediction: Prediction
    words: tuple[Word, ...]
    recorded: dict[str, Any]
    identical: bool
    max_difference: float
    lost: int
    passed_over: int = 0

    @property
    def same_label(self) -> bool:
        """Whether both say the same."""
        return bool(self.recorded.get("label") == self.prediction.label)


def replay_recording(recording: Recording, session: Session) -> Iterator[Compared]:
    """Every recorded step again, in a fresh `session`. Raises `RecordingError` if the bundle reads other media."""
    tick = session.config.tick
    if (tick.rate_hz, tick.sample_rate_hz) != (recording.rate_hz, recording.sample_rate_hz):
        raise RecordingError(
            f"{recording.folder}: recorded at {recording.rate_hz} ticks a second and {recording.sample_rate_hz} Hz, but the "
            f"bundle reads {tick.rate_hz} and {tick.sample_rate_hz}; choose another bundle"
        )
    words: list[Word] = []
    lost = passed_over = 0
    for step in recording.steps():
        words += [p for p in step.packets if isinstance(p, Word)]
        lost += step.lost
        try:
            if step.start_s is not None:
                session.reset()
                session.start(step.start_s)
            for packet in step.packets:
                if isinstance(packet, VideoFrame):
                    session.push_frame(packet)
                elif isinstance(packet, AudioChunk):
                    session.push_audio(packet)
                else:
                    session.push_word(packet)
            shed = step.prediction.get("rung", 0) if step.skipped is None else step.skipped
            if session.ladder is not None and shed in range(len(session.ladder.rungs)):
                session.rung = shed
            if step.skipped is not None:
                session.skip()
                passed_over += 1
                continue
            prediction = session.step()
        except StreamError as e:  # the run itself would have ended there
            raise RecordingError(f"{recording.folder}: damaged ({e}); copy the recording again") from None
        same, most = _compared(step.prediction, prediction)
        yield Compared(prediction, tuple(words), step.prediction, same, most, lost, passed_over)
        words, lost, passed_over = [], 0, 0


def _compared(then: dict[str, Any], prediction: Prediction) -> tuple[bool, float]:
    now = plain(prediction)
    # As text: NaN is equal to NaN there, and -0.0 is not 0.0.
    same = all(json.dumps(then.get(f), sort_keys=True) == json.dumps(now[f], sort_keys=True) for f in REPLAYED)
    probs = then.get("probs")
    if not isinstance(probs, dict):
        return same, math.inf
    most = 0.0
    for name in probs.keys() & now["probs"].keys():
        if not isinstance(probs[name], float):
            return False, math.inf
        a, b = probs[name], now["probs"][name]
        off = 0.0 if math.isnan(a) and math.isnan(b) else abs(a - b)
        most = max(most, math.inf if math.isnan(off) else off)
    return same, most


@dataclass
class Difference:
    """What a whole replay came to; feed it every tick. ticks: with a prediction; shed: of those, on a rung of the ladder;
    passed_over: without one, under load. runs: the first stretches of ticks with other labels, as [from_s, to_s, then, now];
    runs_total: how many there are."""

    ticks: int = 0
    identical: int = 0
    labels_differ: int = 0
    max_difference: float = 0.0
    max_difference_at_s: float | None = None
    frames_lost: int = 0
    passed_over: int = 0
    shed: int = 0
    runs: list[list[Any]] = field(default_factory=list)
    runs_total: int = 0
    _sum: float = 0.0
    _open: bool = False
    _last: tuple[Any, str] = ("", "")

    def add(self, tick: Compared) -> None:
        """One more tick."""
        self.ticks += 1
        self.identical += tick.identical
        self.frames_lost += tick.lost
        self.passed_over += tick.passed_over
        self.shed += bool(tick.recorded.get("rung"))
        self._sum += tick.max_difference
        if tick.max_difference > self.max_difference:
            self.max_difference, self.max_difference_at_s = tick.max_difference, tick.prediction.t_s
        pair = (tick.recorded.get("label"), tick.prediction.label)
        if not tick.same_label:
            self.labels_differ += 1
            if self._open and pair == self._last:
                if self.runs_total == len(self.runs):
                    self.runs[-1][1] = tick.prediction.t_s
            else:
                self.runs_total += 1
                if len(self.runs) < _MOST_RUNS:
                    self.runs.append([tick.prediction.t_s, tick.prediction.t_s, *pair])
        self._open, self._last = not tick.same_label, pair

    @property
    def mean_difference(self) -> float:
        """Mean over the ticks of the largest difference of a probability."""
        return self._sum / self.ticks if self.ticks else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is null."""
        most, mean = self.max_difference, self.mean_difference
        return {
            "ticks": self.ticks,
            "identical": self.identical,
            "labels_differ": self.labels_differ,
            "max_difference": most if math.isfinite(most) else None,
            "max_difference_at_s": self.max_difference_at_s,
            "mean_difference": mean if math.isfinite(mean) else None,
            "frames_lost": self.frames_lost,
            "ticks_passed_over": self.passed_over,
            "ticks_shed": self.shed,
            "other_labels": [dict(zip(("from_s", "to_s", "recorded", "replayed"), run, strict=True)) for run in self.runs],
            "other_labels_total": self.runs_total,
        }
