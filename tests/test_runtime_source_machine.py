"""A source's fate as a pure state machine: every state reached, at the right time, however seldom anybody looks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clcr_edge.packets import AudioChunk, ByteArray
from clcr_edge.runtime.frame_watch import FrameWatch
from clcr_edge.runtime.reopening import Backoff, Reopening
from clcr_edge.runtime.source_machine import SourceMachine
from clcr_edge.runtime.source_monitor import SourceMonitor
from clcr_edge.runtime.source_state import SourceState as S


def machine() -> SourceMachine:
    m = SourceMachine(0.0, stalled_s=1.0, calm_s=2.0)
    m.trying(0.0)
    return m


def state(m: SourceMachine) -> S:
    return m.state


def test_a_life_with_every_state_in_it() -> None:
    m = machine()
    assert state(m) is S.STARTING
    m.opened(0.5)
    m.arrived(0.6)
    assert (m.state, m.since_s) == (S.LIVE, 0.6)
    m.flawed(0.8, "a hole")
    assert (m.state, m.reason) == (S.DEGRADED, "a hole")
    for k in range(9, 40):
        m.arrived(k / 10)
    assert (m.state, m.since_s) == (S.LIVE, 2.8)
    m.pass_time(4.95)
    assert (m.state, m.since_s) == (S.STALLED, 4.9)
    m.arrived(6.0)
    assert state(m) is S.LIVE
    m.failed(6.5, "unplugged")
    assert (m.state, m.reason) == (S.LOST, "unplugged")
    m.trying(7.0)
    assert state(m) is S.RECONNECTING
    m.failed(7.1, "not there")
    m.trying(8.1)
    m.opened(8.2)
    assert state(m) is S.STARTING
    m.arrived(8.3)
    assert (m.state, m.reconnects, m.last_media_s) == (S.LIVE, 1, 8.3)
    assert [c.new for c in m.changes()] == [
        *(S.LIVE, S.DEGRADED, S.LIVE, S.STALLED, S.LIVE, S.LOST, S.RECONNECTING, S.LOST, S.RECONNECTING, S.STARTING, S.LIVE)
    ]
    assert m.changes() == []


def test_the_states_do_not_depend_on_who_looks() -> None:
    rng = np.random.default_rng(5)
    events = sorted((float(rng.uniform(0, 60)), int(rng.integers(0, 5))) for _ in range(80))

    def history(looks_hz: float) -> list[tuple[float, S]]:
        m, out, looked = machine(), [], 0.0
        for t_s, kind in events:
            while looks_hz and looked < t_s:
                m.pass_time(looked)
                out += m.changes()
                looked += 1 / looks_hz
            puts = (m.arrived, m.trying, m.opened, lambda t: m.flawed(t, "x"), lambda t: m.failed(t, "y"))
            puts[kind](t_s)
            out += m.changes()
        return [(c.t_s, c.new) for c in out]

    assert history(0) == history(25) == history(3)
    assert {s for _, s in history(0)} == set(S)


def test_an_opened_source_that_gives_nothing_is_stalled_and_a_flaw_of_an_absent_one_is_none() -> None:
    m = machine()
    m.opened(0.0)
    m.pass_time(1.5)
    assert state(m) is S.STALLED
    m.flawed(1.6, "x")
    assert state(m) is S.STALLED
    m.failed(2.0, "gone")
    m.pass_time(1_000.0)
    assert state(m) is S.LOST


def test_times_never_run_backwards() -> None:
    m = machine()
    m.opened(5.0)
    m.arrived(4.0)  # another thread was quicker
    assert m.last_media_s == 5.0
    assert all(b.t_s >= a.t_s for a, b in pairwise(m.changes()))


def test_the_waits_between_tries() -> None:
    backoff = Backoff()
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 15, 15, 15]
    backoff.reset()
    assert backoff.next_s() == 0.5


class Monitored:
    """A monitor on a clock that the test drives, and what it told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.monitor = SourceMonitor("camera 0", stalled_s=1.0, notice=self.told.append, clock=lambda: self.now)
        self.monitor.trying()
        self.monitor.opened()

    def play(self, seconds: float, *, media: bool = True) -> None:
        for _ in range(round(seconds * 25)):
            self.now += 0.04
            if media:
                self.monitor.arrived()
            self.monitor.health()


def test_a_person_is_told_of_an_outage_once() -> None:
    m = Monitored()
    m.play(3.0)
    for _ in range(5):
        m.monitor.failed("gone")
        m.now += 1.0
        m.monitor.trying()
    m.monitor.opened()
    m.play(1.0)
    assert m.told == ["camera 0 is gone; predictions go on without it while it is looked for", "camera 0 is back"]


def test_a_short_stall_is_a_state_and_a_long_one_a_line() -> None:
    m = Monitored()
    m.play(3.0)
    m.play(1.8, media=False)
    assert m.monitor.state is S.STALLED
    m.play(3.0)
    assert m.told == []
    m.play(3.0, media=False)
    m.play(1.0)
    assert m.told == ["camera 0 has stalled; predictions go on without it", "camera 0 is back"]
    for _ in range(5):  # one that stalls all the time is told of once a minute
        m.play(3.0, media=False)
        m.play(1.0)
    assert len(m.told) == 2


def test_a_flaw_is_told_once_a_minute_and_counted_each_time() -> None:
    m = Monitored()
    m.play(3.0)
    for _ in range(8):
        m.monitor.damaged("it rustles")
        assert m.monitor.state is S.DEGRADED
        m.play(4.0)
    assert m.told == ["camera 0 is degraded: it rustles", "camera 0 is well again"]
    assert m.monitor.health().damaged == 8


def test_holes_in_audio_are_counted_and_an_outage_is_not_told_twice() -> None:
    m = Monitored()
    m.play(3.0)

    def chunk(t_s: float) -> AudioChunk:
        return AudioChunk(np.zeros(320, np.float32), 16_000, t_s)

    poison = AudioChunk(np.full(320, np.nan, np.float32), 16_000, 0.0)
    assert not m.monitor.stamped(poison)  # a session would end at it
    assert not m.monitor.stamped(chunk(m.now + 60.0))
    assert m.monitor.health().damaged == 2
    m.play(4.0)
    m.monitor.stamped(chunk(0.0))
    m.monitor.stamped(chunk(0.02))
    m.monitor.stamped(chunk(0.05))  # 10 ms: jitter
    assert m.monitor.health().gaps == 0
    m.monitor.stamped(chunk(0.27))
    health = m.monitor.health()
    assert (health.gaps, health.state, health.reason) == (1, S.DEGRADED, "0.20 s of audio are missing")
    m.play(4.0)
    m.play(2.0, media=False)
    m.monitor.arrived()
    m.monitor.stamped(chunk(6.0))
    assert (m.monitor.health().gaps, m.monitor.state) == (2, S.LIVE)


def test_the_loop_gives_up_only_at_first() -> None:
    monitor = SourceMonitor("x", stalled_s=1.0)

    def broken() -> None:
        raise OSError("no such thing")

    error = Reopening(broken, monitor).start(5.0)
    assert isinstance(error, OSError)
    tries = []

    def flaky() -> None:
        tries.append(monitor.state)
        if len(tries) == 2:
            raise RuntimeError("a\nb")
        monitor.opened()
        monitor.arrived()
        loop.ready()
        if len(tries) == 3:
            loop.closed.wait(10)

    loop = Reopening(flaky, monitor)
    assert loop.start(5.0) is None
    for _ in range(500):
        if len(tries) == 3:
            break
        loop.closed.wait(0.01)
    loop.close(5.0)
    assert tries[1:] == [S.RECONNECTING, S.RECONNECTING]
    assert monitor.health().reconnects == 1


# -- frames ------------------------------------------------------------------------------------------------------------


def picture(value: int) -> ByteArray:
    return np.random.default_rng(value).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def watch(watcher: FrameWatch, start_s: float, seconds: float, hz: float, still: bool = False) -> tuple[list[str], int]:
    flaws, pauses = [], 0
    for k in range(round(seconds * hz)):
        t_s = start_s + k / hz
        watcher.see(t_s, picture(7 if still else int(t_s * 1_000)))
        flaws += [f for f in (watcher.slow, watcher.frozen) if f is not None]
        pauses += watcher.pause_s is not None
    return flaws, pauses


def test_a_steady_camera_has_no_flaw() -> None:
    watcher = FrameWatch()
    assert watch(watcher, 0, 20, 30) == ([], 0)
    assert watcher.usual_hz == pytest.approx(30, rel=0.05)


def test_far_below_the_usual_rate_is_slow_and_half_of_it_is_the_dark() -> None:
    watcher = FrameWatch()
    watch(watcher, 0, 20, 30)
    flaws, _ = watch(watcher, 20, 20, 15)
    assert flaws == []
    watcher = FrameWatch()
    watch(watcher, 0, 20, 30)
    flaws, pauses = watch(watcher, 20, 60, 5)
    assert "5 frames/s, usually 30" in flaws[-1]
    assert pauses > 100
    flaws, _ = watch(watcher, 80, 20, 30)
    assert flaws[-1:] == [] or watcher.slow is None


def test_a_picture_that_stops_moving_is_frozen_and_a_still_scene_is_not() -> None:
    watcher = FrameWatch()
    watch(watcher, 0, 10, 30)
    flaws, _ = watch(watcher, 10, 6, 30, still=True)
    assert len(flaws) == pytest.approx(90, abs=3)  # from the third second on
    watch(watcher, 16, 0.5, 30)
    assert watcher.frozen is None
    # Drawn scenes: still from the beginning, or moving now and then.
    watcher = FrameWatch()
    assert watch(watcher, 0, 30, 30, still=True)[0] == []
    for k in range(6):
        watch(watcher, 30 + 10 * k, 1, 30)
        assert watch(watcher, 31 + 10 * k, 9, 30, still=True)[0] == []
