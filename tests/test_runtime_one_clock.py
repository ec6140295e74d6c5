"""One clock for pictures and sound: an hour of drift, and a wall clock that somebody sets in the middle of it."""

from __future__ import annotations

import numpy as np
import pytest

from clcr_edge.config import TickConfig
from clcr_edge.packets import AudioChunk, VideoFrame
from clcr_edge.runtime.audio_clock import AudioClock
from clcr_edge.runtime.drift import DriftMeter
from clcr_edge.runtime.host_clock import HostClock
from clcr_edge.runtime.ticker import Ticker

RATE_HZ = 16_000
BLOCK = 320
START_S = 5_000.0
CAMERA_LATE_S = 0.080
MIC_LATE_S = 0.015


class FlatBank:
    """In place of the filter bank, which has no say in time and would take most of the hour."""

    def __init__(self, config: TickConfig) -> None:
        self._features = np.zeros((config.fbank_frames, config.n_mels), np.float32)

    def reset(self) -> None: ...

    def push(self, samples: object) -> object:
        return self._features


def hour(
    seconds: float, ppm: float, *, camera_latency_s: float, mic_offset_s: float
) -> tuple[float, float, Ticker, AudioClock]:
    """A camera and a microphone whose stamps are late by constants, the microphone's clock `ppm` fast, as far as the ticks.

    Gives the worst error in the time of a sample, that of a frame (both against when they truly were), ticker and clock.
    """
    rng = np.random.default_rng(2)
    clock, ticker = AudioClock(RATE_HZ), Ticker(TickConfig())
    ticker.start(START_S)
    block_s = BLOCK / RATE_HZ / (1 + ppm * 1e-6)
    blocks = int(seconds / block_s)
    waits = rng.exponential(0.0005, blocks) + rng.choice([0.0, 0.020], blocks, p=[0.99, 0.01])  # for the interpreter
    wander = rng.normal(0, 3e-5, blocks)  # of the stamps, as measured on a PulseAudio null sink
    image = np.zeros((8, 8, 3), np.uint8)
    frames = 0
    worst_audio_s = worst_frame_s = 0.0
    for k in range(blocks):
        true_s = START_S + k * block_s
        arrival_s = true_s + block_s + MIC_LATE_S + waits[k]
        stamp = clock.stamp(BLOCK, true_s + MIC_LATE_S + wander[k], arrival_s)
        assert stamp is not None
        t_s, adjust = stamp[0] + mic_offset_s, stamp[1]
        ticker.push_audio(AudioChunk(np.zeros(BLOCK + adjust, np.float32), RATE_HZ, t_s))
        heard_s = ticker.audio_until_s
        assert heard_s is not None
        worst_audio_s = max(worst_audio_s, abs(heard_s - (true_s + block_s)))
        while START_S + frames * 0.04 + CAMERA_LATE_S <= arrival_s:
            handed_over_s = START_S + frames * 0.04 + CAMERA_LATE_S
            ticker.push_frame(VideoFrame(image, handed_over_s - camera_latency_s, frames))
            frames += 1
        while ticker.next_end_s <= heard_s:
            tick = ticker.cut()
            if tick.frame_s is not None and tick.frame_seq is not None:
                worst_frame_s = max(worst_frame_s, abs(tick.frame_s - (START_S + tick.frame_seq * 0.04)))
    return worst_audio_s, worst_frame_s, ticker, clock


@pytest.fixture(autouse=True)
def flat_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clcr_edge.runtime.ticker.FbankStream", FlatBank)


@pytest.mark.parametrize(("seconds", "ppm"), [(3_600.0, 100.0), (600.0, -100.0)])
def test_an_hour_of_drift_and_known_offsets_stays_within_ten_milliseconds(seconds: float, ppm: float) -> None:
    worst_audio_s, worst_frame_s, ticker, clock = hour(
        seconds, ppm, camera_latency_s=CAMERA_LATE_S, mic_offset_s=-MIC_LATE_S
    )
    assert worst_audio_s < 0.004  # counting alone would be 360 ms off after the hour
    assert worst_frame_s < 1e-6
    assert clock.jumps == 0
    assert clock.drift_ppm == pytest.approx(ppm, abs=1.0)
    assert ticker.stats.samples_missing == 0
    assert ticker.stats.samples_late <= 2
    assert ticker.stats.ticks == pytest.approx(seconds * 25, abs=2)
    assert ticker.stats.frames_late == 0


def test_offsets_that_nobody_takes_out_are_errors_of_just_that_size() -> None:
    worst_audio_s, worst_frame_s, _, _ = hour(20.0, 0.0, camera_latency_s=0.0, mic_offset_s=0.0)
    assert worst_audio_s == pytest.approx(MIC_LATE_S, abs=0.001)
    assert worst_frame_s == pytest.approx(CAMERA_LATE_S, abs=1e-6)


def test_drift_is_not_told_before_it_is_known_and_survives_a_hole() -> None:
    meter = DriftMeter()
    for second in range(60):
        meter.add(second, -25e-6 * second)
        assert (meter.ppm is None) == (second < 20)
    assert meter.ppm == pytest.approx(25.0)
    meter.restart()
    meter.add(100.0, 7.0)
    assert meter.ppm == pytest.approx(25.0)


@pytest.mark.parametrize("step_s", [0.4, -0.4, 5.0, -5.0, 3_600.0, -3_600.0])
@pytest.mark.parametrize("torn", [False, True])
def test_setting_the_wall_clock_does_not_move_the_stream(step_s: float, torn: bool) -> None:
    """torn: the step falls between PortAudio's reading of the clock and ours."""
    now = [100.0]
    wall_minus_now = [1.7e9]
    host = HostClock(now=lambda: now[0], wall=lambda: now[0] + wall_minus_now[0])
    clock = AudioClock(RATE_HZ)
    errors = []
    for k in range(400):
        true_s = 100.0 + k * 0.02
        current_s = true_s + 0.02 + wall_minus_now[0] + (0.0 if k != 200 or torn else step_s)
        if k == 200:
            wall_minus_now[0] += step_s
        now[0] = true_s + 0.02 + 1e-4  # the callback's own wait
        captured_s, arrival_s = host.stamp(current_s, current_s - 0.02)
        stamp = clock.stamp(BLOCK, captured_s, arrival_s)
        assert stamp is not None
        errors.append(stamp[0] - true_s)
    assert np.abs(errors).max() < 0.001
    assert clock.jumps == 0


@pytest.mark.parametrize("block_s", [0.005, 0.01, 0.02])
def test_a_device_with_a_clock_of_its_own_is_followed_without_its_waits(block_s: float) -> None:
    now = [0.0]
    host = HostClock(now=lambda: now[0], wall=lambda: 1.7e9)
    rng = np.random.default_rng(3)
    for k in range(round(10 / block_s)):
        current_s = 77.0 + k * block_s
        now[0] = 1_000.0 + k * block_s + rng.exponential(0.001)
        _, arrival_s = host.stamp(current_s, 0.0)
        if k * block_s > 1:
            assert arrival_s == pytest.approx(1_000.0 + k * block_s, abs=0.001)
    offset_s = host._offset_s
    for _ in range(round(1.0 / block_s)):  # a second of late callbacks is believed as little, however many they are
        k += 1
        now[0] = 1_000.1 + k * block_s
        host.stamp(77.0 + k * block_s, 0.0)
    assert host._offset_s - offset_s < 0.0015
