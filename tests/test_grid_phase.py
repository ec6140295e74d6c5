"""Where the ticks of a live run end: the sources decide."""

from __future__ import annotations

import numpy as np
import pytest

from clcr_edge.runtime.grid_phase import Arrivals, best_phase, on_grid

TICK_S = 0.04


def sound(begun_s: float, block_s: float = 0.01, lag_s: float = 0.008, until_s: float = 100.4) -> list[tuple[float, float]]:
    ends = np.arange(begun_s + block_s, until_s, block_s)
    return [(float(end + lag_s), float(end)) for end in ends]


def frames(begun_s: float, rate_hz: float, latency_s: float = 0.0, until_s: float = 100.4) -> list[tuple[float, float]]:
    return [(float(t + latency_s), float(t)) for t in np.arange(begun_s, until_s - latency_s, 1.0 / rate_hz)]


def ages(seen: Arrivals, phase_s: float) -> tuple[float, float]:
    """Of ticks laid so: the mean ages of the newest sound and the newest frame when both can be had, in ms."""
    ends = on_grid(100.1, phase_s, TICK_S) + TICK_S * np.arange(6)
    ready = [next((max(t, came) for came, end in seen.sound if end >= t), t) for t in ends] if seen.sound else list(ends)
    newest = [max((f for came, f in seen.frames if f <= t and came <= r), default=r) for t, r in zip(ends, ready, strict=True)]
    pairs = list(zip(ends, ready, newest, strict=True))
    return 1e3 * float(np.mean([r - t for t, r, _ in pairs])), 1e3 * float(np.mean([r - f for _, r, f in pairs]))


@pytest.mark.parametrize("begun_ms", range(0, 10, 3))
def test_ticks_end_as_a_block_of_sound_does(begun_ms: int) -> None:
    seen = Arrivals(sound=sound(100.0 + begun_ms / 1e3))
    phase_s = best_phase(seen, TICK_S)
    assert phase_s is not None
    assert ages(seen, phase_s)[0] < 8.0 + 4.0  # 8 ms nobody can help; by chance the mean is 5 more, at worst 10


@pytest.mark.parametrize("latency_ms", [0, 5, 20, 50])
@pytest.mark.parametrize("rate_hz", [25.0, 50.0, 12.5])
@pytest.mark.parametrize("begun_ms", range(0, 40, 13))
def test_ticks_end_just_after_frames_of_a_camera_that_keeps_step(rate_hz: float, begun_ms: int, latency_ms: int) -> None:
    """Just after they arrive: a camera whose latency is known stamps its frames with when they were captured."""
    seen = Arrivals(frames=frames(100.0 + begun_ms / 1e3, rate_hz, latency_ms / 1e3))
    phase_s = best_phase(seen, TICK_S)
    assert phase_s is not None
    late = ages(seen, phase_s)[1] - latency_ms - (20.0 if rate_hz == 12.5 else 0.0)  # every second tick has an older frame
    assert 1.5 < late < 5.0  # 2 ms are kept for arrivals that wander


@pytest.mark.parametrize("latency_ms", [0, 20, 30])
@pytest.mark.parametrize("rate_hz", [25.0, 30.0])
@pytest.mark.parametrize("block_s", [0.01, 0.02])
def test_sound_and_pictures_are_weighed_together(block_s: float, rate_hz: float, latency_ms: int) -> None:
    gains = []
    for begun_s in np.arange(100.0, 100.04, 0.007):
        seen = Arrivals(sound(100.003, block_s), frames(begun_s, rate_hz, latency_ms / 1e3))
        phase_s = best_phase(seen, TICK_S)
        assert phase_s is not None
        chosen = sum(ages(seen, phase_s))
        every = [sum(ages(seen, phase_s + k / 1e3)) for k in range(40)]
        gains.append(np.mean(every) - chosen)
    assert min(gains) > 0.0  # never worse than chance, wherever the camera begins
    assert np.mean(gains) > 4.0


def test_arrivals_that_wander_do_not_fall_over_the_edge() -> None:
    rng = np.random.default_rng(0)
    steady = np.arange(100.0, 101.0, TICK_S)
    seen = Arrivals(frames=[(t, t) for t in (steady + rng.uniform(-0.0015, 0.0015, len(steady))).tolist()])
    phase_s = best_phase(seen, TICK_S)
    assert phase_s is not None
    assert ages(seen, phase_s)[1] < 7.0


@pytest.mark.parametrize("latency_ms", [-30, -200])
def test_stamps_that_cannot_be_are_no_reason_to_fall(latency_ms: int) -> None:
    """A latency given wrongly stamps frames with times to come; a clock that settles, sound with times that go back."""
    wandering = [(came, end + 0.02 * (k % 2)) for k, (came, end) in enumerate(sound(100.0))]
    early = frames(100.0, 25.0, latency_ms / 1e3)
    for seen in (Arrivals(wandering, early), Arrivals(frames=early), Arrivals(wandering[::-1])):
        phase_s = best_phase(seen, TICK_S)
        assert phase_s is None or 0.0 <= phase_s < TICK_S


@pytest.mark.parametrize(
    "seen",
    [
        Arrivals(),
        Arrivals(sound(100.0)[:2]),
        Arrivals(frames=frames(100.0, 25.0)[:2]),
        Arrivals(frames=frames(1.0, 100.0, until_s=1.025)),
    ],
)
def test_too_little_tells_nothing(seen: Arrivals) -> None:
    assert best_phase(seen, TICK_S) is None


def test_a_time_on_the_grid_is_the_next_one() -> None:
    assert on_grid(10.0, 0.03, TICK_S) == pytest.approx(10.03)
    assert on_grid(10.0, 0.0, TICK_S) == pytest.approx(10.0)
    assert 1e6 <= on_grid(1e6, 0.0123, TICK_S) < 1e6 + TICK_S
