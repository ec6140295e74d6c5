"""The race: each rival's ticks timed block by block in an order that its caller draws, its outputs held to ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rivals.graphs import Arrays

LIMIT = 1e-4  # a rival that differs by more computes something else
Rival = Callable[[int, Arrays], list[np.ndarray]]


def worst_of(wanted: list[np.ndarray], got: list[np.ndarray]) -> float:
    """Largest absolute difference between two lists of outputs."""
    return max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True))


def summary(us: list[float], phases: list[int]) -> dict[str, Any]:
    """Microseconds per tick: n, percentiles, mean and largest; and the dearest phase's median (what a deadline must hold)."""
    x, by = np.asarray(us), np.asarray(phases)
    p50, p90, p99 = np.percentile(x, [50, 90, 99])
    return {
        "n": len(us), "p50_us": round(p50, 1), "p90_us": round(p90, 1), "p99_us": round(p99, 1), "max_us": round(x.max(), 1),
        "mean_us": round(x.mean(), 1), "worst_phase_p50_us": round(max(float(np.median(x[by == p])) for p in set(phases)), 1),
    }  # fmt: skip


def ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Per round: their median tick over ours."""
    r = np.asarray(theirs) / np.asarray(ours)
    p10, p50, p90 = np.percentile(r, [10, 50, 90])
    return {"rounds": len(r), "p10": round(p10, 2), "p50": round(p50, 2), "p90": round(p90, 2)}


class Race:
    """Times each rival's ticks, block by block in an order that its caller draws, and holds each to the reference.

    `warm`: ticks before comparing; by then every receptive field and every window of words must be full.
    """

    def __init__(
        self,
        rivals: dict[str, Rival],
        feeds: dict[str, list[Arrays]],
        reference: list[list[np.ndarray]],
        warm: int,
    ) -> None:
        self.rivals, self.feeds, self.reference, self.warm = rivals, feeds, reference, warm
        self.at = dict.fromkeys(rivals, 0)
        self.times: dict[str, list[float]] = {name: [] for name in rivals}
        self.phases: dict[str, list[int]] = {name: [] for name in rivals}
        self.blocks: dict[str, list[float]] = {name: [] for name in rivals}
        self.difference = dict.fromkeys(rivals, 0.0)

    def run(self, name: str, ticks: int, before: Callable[[], object] | None = None, count: bool = True) -> None:
        spent = []
        for _ in range(ticks):
            tick = self.at[name]
            feed = self.feeds[name][tick]
            if before:
                before()
            begun = time.perf_counter_ns()
            got = self.rivals[name](tick, feed)
            spent.append((time.perf_counter_ns() - begun) / 1e3)
            if tick >= self.warm:
                difference = worst_of(self.reference[tick], got)
                assert difference <= LIMIT, f"{name} differs by {difference} at tick {tick}: not the same outputs"
                self.difference[name] = max(self.difference[name], difference)
            if count:
                self.times[name].append(spent[-1])
                self.phases[name].append((tick + 1) % 4)
            self.at[name] += 1
        if count:
            self.blocks[name].append(float(np.median(spent)))

    def table(self, against: str) -> dict[str, Any]:
        return {
            name: summary(self.times[name], self.phases[name])
            | {"ratio_to_ours": ratio(self.blocks[name], self.blocks[against]), "max_difference": self.difference[name]}
            for name in self.rivals
        }
