"""Latency of several engines, interleaved in one process on one thread, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from clcr_edge.runtime.engine import Engine, StepInputs

WARM = 30  # steps that are made first and not counted


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """n, p50, p90, p99 in milliseconds."""
    p50, p90, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99])
    return {"n": len(seconds), "p50_ms": round(p50, 4), "p90_ms": round(p90, 4), "p99_ms": round(p99, 4)}


def histogram(seconds: Sequence[float], low_ms: float, high_ms: float, bins: int = 40) -> list[int]:
    """Counts over equal bins from low to high; what lies outside counts in the first or the last."""
    return [int(c) for c in np.histogram(np.clip(np.asarray(seconds) * 1e3, low_ms, high_ms), bins, (low_ms, high_ms))[0]]


def interleaved(engines: Mapping[str, Engine], ticks: Sequence[StepInputs], rounds: int = 400) -> dict[str, dict[str, float]]:
    """Percentiles of `timed`."""
    return {name: percentiles(values) for name, values in timed(engines, ticks, rounds).items()}


def timed(engines: Mapping[str, Engine], ticks: Sequence[StepInputs], rounds: int = 400) -> dict[str, list[float]]:
    """Seconds of every step. Every engine steps once per round over the same ticks, states rolled out; the order turns from
    round to round."""
    states = {name: engine.initial_state() for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for turn in range(rounds + WARM):
        inputs = ticks[turn % len(ticks)]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun = time.perf_counter()
            _, states[name] = engines[name].step(inputs, states[name])
            if turn >= WARM:
                times[name].append(time.perf_counter() - begun)
    return times


def paced(
    engine: Engine,
    ticks: Sequence[StepInputs],
    rate_hz: float,
    count: int,
    *,
    warm: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Seconds of every step with the stream's own gaps between steps: GPUs and CPUs clock down in them, so this is what a
    user gets. warm: steps that are made first, at the same pace, and not counted."""
    state = engine.initial_state()
    times: list[float] = []
    due = clock()
    for turn in range(warm + count):
        due += 1.0 / rate_hz
        sleep(max(0.0, due - clock()))
        begun = clock()
        _, state = engine.step(ticks[turn % len(ticks)], state)
        if turn >= warm:
            times.append(clock() - begun)
    return times
