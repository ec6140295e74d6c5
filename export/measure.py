"""What engines say about labelled streams, all of them in one pass: scores, the events one by one, and their calibration.

Making a stream (pictures, sound, features) takes as long as running it; so it is made once, and every engine runs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clcr_edge.calibration.streams import inputs_of
from clcr_edge.data.bank import NONE
from clcr_edge.data.streams import Stream
from clcr_edge.runtime.engine import Engine
from clcr_edge.train.metrics import Metrics, Scorer, event_label

BINS = 10


class Reliability:
    """How often a tick's label is right, by how sure the network was of it; bounded, however many ticks."""

    def __init__(self, bins: int = BINS) -> None:
        self._ticks: npt.NDArray[np.int64] = np.zeros(bins, np.int64)
        self._right: npt.NDArray[np.int64] = np.zeros(bins, np.int64)
        self._sure: npt.NDArray[np.float64] = np.zeros(bins)

    def see(self, probs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        """Add ticks: probs `[T, classes]`, labels `[T]`."""
        sure, right = probs.max(axis=1).astype(np.float64), probs.argmax(axis=1) == labels
        at = np.clip((sure * len(self._ticks)).astype(np.int64), 0, len(self._ticks) - 1)
        np.add.at(self._ticks, at, 1)
        np.add.at(self._right, at, right)
        np.add.at(self._sure, at, sure)

    def to_json(self) -> dict[str, Any]:
        """Per bin ticks, mean confidence and accuracy (None where empty), and the expected calibration error, 0..1."""
        some = np.maximum(self._ticks, 1)
        confidence, accuracy = self._sure / some, self._right / some
        gap = float((np.abs(confidence - accuracy) * self._ticks).sum() / max(int(self._ticks.sum()), 1))

        def listed(values: npt.NDArray[np.float64]) -> list[float | None]:
            return [round(float(v), 4) if n else None for v, n in zip(values, self._ticks, strict=True)]

        return {
            "ticks": self._ticks.tolist(),
            "confidence": listed(confidence),
            "accuracy": listed(accuracy),
            "expected_calibration_error": round(gap, 4),
        }


@dataclass(frozen=True)
class Measured:
    """One engine's results. events: per event whether it was right, in the order of the streams."""

    metrics: Metrics
    events: tuple[bool, ...]
    reliability: dict[str, Any]

    def lost(self, before: Measured) -> dict[str, Any]:
        """Against another engine on the same streams: points of event accuracy lost, and the events that changed sides."""
        pairs = list(zip(before.events, self.events, strict=True))
        worse, better = sum(b and not n for b, n in pairs), sum(n and not b for b, n in pairs)
        points = 100.0 * (worse - better) / len(pairs) if pairs else 0.0
        return {"points": points, "events_lost": worse, "events_gained": better, "n_events": len(pairs)}


def measure(
    engines: Mapping[str, Engine], streams: Iterable[Stream], tell: Callable[[int], None] = lambda streams: None
) -> dict[str, Measured]:
    """Run all engines over the streams in lockstep, each with its own state."""
    scorers = {name: Scorer(NONE) for name in engines}
    events: dict[str, list[bool]] = {name: [] for name in engines}
    curves = {name: Reliability() for name in engines}
    for count, stream in enumerate(streams):
        tell(count)
        states = {name: engine.initial_state() for name, engine in engines.items()}
        said: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in engines}
        config = next(iter(engines.values())).config
        for inputs in inputs_of(stream, config):
            for name, engine in engines.items():
                outputs, states[name] = engine.step(inputs, states[name])
                said[name].append(outputs.probs)
        for name in engines:
            probs = np.stack(said[name])
            labels = probs.argmax(axis=1).astype(np.int64)
            scorers[name].add(stream.labels, labels, stream.events)
            curves[name].see(probs, stream.labels)
            events[name] += [event_label(labels[e.onset : e.end], NONE) == e.label for e in stream.events]
    return {n: Measured(scorers[n].result(), tuple(events[n]), curves[n].to_json()) for n in engines}
