"""Streaming accuracy: scores the prediction that exists at an instant, so that latency costs accuracy. numpy only.

The idea of streaming average precision (Li, Wang and Ramanan, "Towards Streaming Perception", ECCV 2020), for labels per tick.

Tick j's media are whole at e_j = (j + 1) * TICK_S. Its prediction exists from d_j on:

    d_j = max(e_j + capture, d_(j-1)) + step_j        the media arrive `capture` late; one step at a time, in order

At the end e_k of each tick the label of tick k is held against the newest prediction that exists then, which is that of the
largest j with d_j <= e_k; before the first one it is "none". Tick and event accuracies are then counted as ever (`Scorer`).
Without latency they are the plain ones; where each step takes the same, and less than a tick, each prediction counts
ceil((capture + step) / TICK_S) ticks later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clcr_edge.train.metrics import TICK_S, IntArray

_EXACT_S = 1e-9  # a latency of exactly one tick is one tick, whatever floats make of it


@dataclass(frozen=True)
class Delay:
    """step_ms: of every step; None: as measured for each. capture_ms: from a sound or a picture to the network's input."""

    step_ms: float | None
    capture_ms: float = 0.0

    def steps_s(self, measured_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Seconds that each step takes, float64 `[T]`, given what was measured."""
        return measured_s if self.step_ms is None else np.full(len(measured_s), self.step_ms / 1e3)


def existing(predicted: IntArray, steps_s: npt.NDArray[np.float64], capture_s: float, none: int) -> IntArray:
    """The label of the newest prediction that exists at the end of each tick, int64 `[T]`.

    predicted int64 `[T]`; steps_s float64 `[T]`, seconds that each step takes; none: the label before the first.
    """
    out = np.full(len(predicted), none, np.int64)
    ends_s = np.arange(1, len(predicted) + 1) * TICK_S
    done_s = np.empty(len(predicted))
    before_s = -np.inf
    for j, end_s in enumerate(ends_s):
        done_s[j] = before_s = max(end_s + capture_s, before_s) + steps_s[j]
    # The last j with done_s[j] <= end of tick k: done_s never falls.
    newest = np.searchsorted(done_s, ends_s + _EXACT_S, side="right") - 1
    there = newest >= 0
    out[there] = predicted[newest[there]]
    return out
