"""Live audio stamps: steady under jitter, true under drift, at once right again after a hole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clcr_edge.runtime.audio_clock import AudioClock

RATE_HZ = 16_000
BLOCK = 320


def run(
    seconds: float, *, ppm: float = 0.0, jitter_s: float = 0.0, stamp: Callable[[float, float], float] | None = None
) -> tuple[list[float], list[float], AudioClock]:
    """Blocks of a device whose clock is `ppm` fast; gives stamps, true times, and the clock."""
    rng = np.random.default_rng(1)
    clock = AudioClock(RATE_HZ)
    stamps, truths = [], []
    for k in range(int(seconds * RATE_HZ / BLOCK)):
        truth = 100.0 + k * BLOCK / RATE_HZ / (1 + ppm * 1e-6)
        arrival = truth + BLOCK / RATE_HZ + abs(rng.normal(0, jitter_s))
        captured = truth if stamp is None else stamp(truth, arrival)
        result = clock.stamp(BLOCK, captured, arrival)
        assert result is not None
        stamps.append(result[0])
        truths.append(truth)
    return stamps, truths, clock


def test_a_perfect_device_is_stamped_exactly_and_without_gaps() -> None:
    stamps, truths, clock = run(5.0)
    np.testing.assert_allclose(stamps, truths, atol=1e-9)
    assert clock.jumps == 0


def test_jittering_arrivals_do_not_move_the_stamps() -> None:
    stamps, truths, clock = run(20.0, jitter_s=0.010, stamp=lambda _truth, arrival: arrival - BLOCK / RATE_HZ)
    error = np.array(stamps) - truths
    # Half of the arrivals are later than the median; the constant part is what such a device cannot tell.
    assert np.abs(error[100:] - np.median(error)).max() < 0.004
    assert clock.jumps == 0


def test_a_drifting_device_is_followed_one_sample_at_a_time() -> None:
    for ppm in (200.0, -200.0):
        stamps, truths, clock = run(300.0, ppm=ppm)
        assert np.abs(np.array(stamps) - truths).max() < 0.003  # counting alone would be 60 ms off
        assert clock.jumps == 0
        steps = np.diff(stamps) * RATE_HZ
        assert set(np.round(steps).astype(int)) <= {BLOCK - 1, BLOCK, BLOCK + 1}


def test_a_driver_that_stamps_the_end_of_a_block_is_corrected() -> None:
    stamps, truths, _ = run(2.0, stamp=lambda _truth, arrival: arrival)
    np.testing.assert_allclose(stamps, truths, atol=1e-9)


def test_lost_time_is_jumped_over() -> None:
    clock = AudioClock(RATE_HZ)
    shift = 0.0
    stamps = []
    for k in range(300):
        if k == 100:
            shift = 3.2  # the server was suspended; its samples are gone
        truth = k * 0.02 + shift
        result = clock.stamp(BLOCK, truth, truth + 0.02)
        if result is not None:
            stamps.append((result[0], truth))
    assert all(abs(got - truth) < 1e-6 for got, truth in stamps[100:])
    assert len(stamps) >= 298


def test_the_backlog_of_a_stall_is_dropped_and_what_follows_is_right() -> None:
    clock = AudioClock(RATE_HZ)
    dropped, late = 0, []
    for k in range(400):
        truth = k * 0.02
        arrival = max(truth + 0.02, 6.0 + (k - 100) * 1e-4) if 100 <= k < 300 else truth + 0.02
        result = clock.stamp(BLOCK, min(truth, arrival), arrival)
        if result is None:
            dropped += 1
        else:
            late.append(result[0] - truth)
    assert 195 <= dropped <= 202
    assert np.abs(late).max() < 0.003
