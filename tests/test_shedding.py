"""The controller on a simulated machine whose costs are known, and a live pipeline whose reader is too slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clcr_edge import bundle as bundles
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.ladder import Ladder, Rung
from clcr_edge.runtime.live_feed import LiveFeed
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import Pipeline, live
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.shedding import Shedding, SheddingSettings

TICK_S = 0.04
COSTS = (1.0, 0.72, 0.5, 0.3, 0.15)
CALM_S = SheddingSettings().calm_s


def simulate(
    load_at: Callable[[float], float], seconds: float, noise: float = 0.0, costs: tuple[float, ...] = COSTS
) -> tuple[list[int], list[float], Shedding]:
    """A machine on which a whole tick takes load x 40 ms. Returns the rung and the real backlog in seconds, tick by tick."""
    rng = np.random.default_rng(0)
    shedding = Shedding(COSTS, TICK_S)
    rungs, backlogs, free_s = [], [], 0.0
    for tick in range(int(seconds / TICK_S)):
        begun_s = max(free_s, (tick + 1) * TICK_S)
        busy_s = costs[shedding.rung] * load_at(tick * TICK_S) * TICK_S * float(np.exp(noise * rng.standard_normal()))
        free_s = begun_s + busy_s
        rungs.append(shedding.observe(busy_s))
        backlogs.append(begun_s - (tick + 1) * TICK_S)
    return rungs, backlogs, shedding


def changes(rungs: list[int]) -> list[tuple[float, int]]:
    """(second, rung) of each change."""
    return [(i * TICK_S, b) for i, (a, b) in enumerate(zip([0, *rungs], rungs, strict=False)) if a != b]


def fits(load: float) -> int:
    """The first rung that stays below the high mark."""
    return next(i for i, c in enumerate(COSTS) if c * load <= SheddingSettings().high)


class TestSimulated:
    @pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
    def test_a_machine_that_is_fast_enough_sheds_nothing(self, load: float) -> None:
        rungs, backlogs, _ = simulate(lambda _: load, 120.0, noise=0.1)
        assert set(rungs) == {0}
        assert max(backlogs) <= TICK_S

    @pytest.mark.parametrize("load", [1.05, 1.2, 1.7, 2.7, 5.0])
    def test_a_step_of_load_goes_down_one_at_a_time_to_the_rung_that_fits_and_stays(self, load: float) -> None:
        rungs, backlogs, _ = simulate(lambda t: 0.5 if t < 10 else load, 130.0)
        assert set(rungs[: int(10 / TICK_S)]) == {0}
        assert all(abs(b - a) <= 1 for a, b in pairwise(rungs))
        settled = rungs[int(30 / TICK_S) :]
        assert set(settled) == {fits(load)}, changes(rungs)
        assert max(backlogs[int(30 / TICK_S) :]) == 0.0  # what had piled up is worked off
        assert max(backlogs) < 2.4

    def test_load_that_goes_away_brings_the_whole_network_back_after_calm(self) -> None:
        rungs, _, _ = simulate(lambda t: 2.7 if 10 <= t < 30 else 0.5, 90.0)
        ups = [(t, r) for t, r in changes(rungs) if t >= 30]
        assert [r for _, r in ups] == [2, 1, 0]
        assert ups[0][0] - 30 >= CALM_S - 0.5
        assert all(b[0] - a[0] >= CALM_S for a, b in pairwise(ups))
        assert rungs[-1] == 0

    def test_a_short_burst_changes_nothing(self) -> None:
        rungs, _, _ = simulate(lambda t: 3.0 if 10 <= t < 10.08 else 0.5, 30.0)
        assert set(rungs) == {0}

    def test_a_ramp_goes_down_and_comes_back_without_turning_round(self) -> None:
        rungs, _, _ = simulate(lambda t: 0.5 + 3.0 * min(t, 240 - t) / 120, 320.0, noise=0.1)
        levels = [r for _, r in changes(rungs)]
        top = levels.index(max(levels))
        assert levels[: top + 1] == list(range(1, max(levels) + 1))
        assert levels[top:] == list(range(max(levels), -1, -1))

    @pytest.mark.parametrize("load", [0.75, 0.95, 1.0, 1.3, 1.9, 3.1, 7.0])
    def test_noise_never_makes_it_swing(self, load: float) -> None:
        """Ten minutes of noise: at most a change every minute once it has settled, wherever the load lies."""
        rungs, _, _ = simulate(lambda _: load, 660.0, noise=0.25)
        late = [c for c in changes(rungs) if c[0] >= 60]
        assert len(late) <= 10, late

    def test_costs_that_are_wrong_on_this_machine_do_not_make_it_swing(self) -> None:
        """The rung above costs twice what the export measured: every step up fails; they become rare."""
        rungs, _, _ = simulate(lambda _: 1.0, 1200.0, costs=(2.0, 1.3, 0.4, 0.3, 0.15))
        ups = [t for (_, before), (t, r) in pairwise(changes(rungs)) if r < before]
        assert 2 <= len(ups) <= 16, ups
        gaps = np.diff(ups)
        assert gaps[-1] >= 100 > gaps[0]

    def test_beyond_the_last_rung_it_stays_there_with_a_bounded_backlog(self) -> None:
        rungs, _, shedding = simulate(lambda _: 20.0, 60.0)
        assert rungs[-1] == len(COSTS) - 1
        assert shedding.backlog_s == SheddingSettings().most_backlog_s
        assert shedding.drops

    @pytest.mark.parametrize("load", [8.0, 20.0, 60.0])
    def test_where_the_last_rung_does_not_keep_up_ticks_pass_and_nothing_falls_behind(self, load: float) -> None:
        """A tick that passes takes a two-hundredth of a whole one; predictions are as many as fit, and never late for long."""
        shedding, free_s = Shedding(COSTS, TICK_S), 0.0
        made: list[bool] = []
        backlogs: list[float] = []
        for tick in range(3_000):
            begun_s = max(free_s, (tick + 1) * TICK_S)
            if begun_s - (tick + 1) * TICK_S > 2.0:  # as a live run does
                begun_s = (tick + 1) * TICK_S
                shedding.restarted()
            passes = shedding.drops
            busy_s = (0.005 if passes else COSTS[shedding.rung]) * load * TICK_S
            free_s = begun_s + busy_s
            shedding.observe(busy_s)
            made.append(not passes)
            backlogs.append(begun_s - (tick + 1) * TICK_S)
        assert shedding.rung == len(COSTS) - 1
        settled = slice(1_000, None)
        assert max(backlogs[settled]) <= TICK_S + COSTS[-1] * load * TICK_S
        assert np.mean(made[settled]) == pytest.approx(min(1.0, (1.0 - 0.005 * load) / (0.145 * load)), rel=0.1)

    def test_while_there_are_rungs_left_no_tick_passes(self) -> None:
        shedding = Shedding(COSTS, TICK_S)
        for _ in range(4):
            shedding.observe(0.5)
        assert shedding.backlog_s > TICK_S
        assert not shedding.drops

    def test_reset(self) -> None:
        _, _, shedding = simulate(lambda _: 5.0, 10.0)
        assert shedding.rung > 0
        shedding.reset()
        assert (shedding.rung, shedding.backlog_s, shedding.busy_s, shedding.load) == (0, 0.0, 0.0, 0.0)


class TestLive:
    def test_a_reader_that_is_too_slow_is_given_fewer_predictions_and_then_all_again(self, proof_bundle: Path) -> None:
        """A real live feed, real time: work of 60 ms a prediction, then none."""
        engine = OnnxEngine.from_bundle(bundles.read(proof_bundle))
        rungs_ = [Rung("half-rate", tick_every=2, saving=0.5), Rung("quarter-rate", tick_every=4, saving=0.75)]
        ladder = Ladder(engine, rungs_, {})
        notices: list[str] = []
        settings = SheddingSettings(calm_s=0.6, low=0.9)
        feed = LiveFeed(None, None, threading.Event(), tick_s=TICK_S)
        shedding = Shedding(ladder.costs, TICK_S, settings)
        seen: list[tuple[int, int]] = []
        with Pipeline(Session(engine, ladder), feed, None, Listener(on_notice=notices.append), shedding=shedding) as pipeline:
            begun_s = time.monotonic()
            for p in pipeline:
                seen.append((p.tick, p.rung))
                if time.monotonic() - begun_s < 2.5:
                    time.sleep(0.06)
                elif p.rung == 0 or time.monotonic() - begun_s > 30.0:
                    break
        rungs = [r for _, r in seen]
        assert max(rungs) >= 1
        assert (rungs[0], rungs[-1]) == (0, 0)
        assert all(abs(b - a) <= 1 for a, b in pairwise(rungs))
        for (a, rung), (b, after) in pairwise(seen):
            if rung == after > 0:
                assert b - a == 2**rung
        assert notices[0].startswith("ticks take")
        assert "rung 1 of 2 (half-rate)" in notices[0]
        assert notices[-1] == "the whole network again"
        summary = pipeline.summary
        assert summary.ticks_skipped == summary.ticks - len(seen) > 0
        assert f"{summary.ticks_skipped} ticks skipped under load" in summary.line

    def test_without_a_ladder_nothing_is_shed(self, proof_bundle: Path) -> None:
        engine = OnnxEngine.from_bundle(bundles.read(proof_bundle))
        with live(Session(engine)) as pipeline:
            ticks = []
            for p in pipeline:
                time.sleep(0.06)
                ticks.append((p.tick, p.rung))
                if p.tick == 15:
                    break
        assert ticks == [(i, 0) for i in range(16)]

    def test_a_restart_keeps_the_rung(self, proof_bundle: Path) -> None:
        engine = OnnxEngine.from_bundle(bundles.read(proof_bundle))
        session = Session(engine, Ladder(engine, [Rung("half-rate", tick_every=2, saving=0.5)], {}))
        with live(session) as pipeline:
            session.start(0.0)
            session.rung = 1
            pipeline._restart(5.0)
            assert session.rung == 1
            session.reset()
            assert session.rung == 0
