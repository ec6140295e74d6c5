"""`clcr-edge bench`: every figure is there, counts what it says, and rests on the samples that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip, noise

from clcr_edge import bundle
from clcr_edge.commands.bench import page
from clcr_edge.errors import EngineError
from clcr_edge.export.bench import cold_start, deadlines, run_live, state_bytes, worst
from clcr_edge.export.generated import GeneratedMedia
from clcr_edge.export.latency import WARM, paced
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.machine import resident_bytes
from clcr_edge.runtime.onnx_engine import OnnxEngine

COMMAND = [sys.executable, "-m", "clcr_edge", "bench"]


@pytest.fixture(scope="module")
def engine(proof_bundle: Path) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundle.read(proof_bundle))


class OnAClock:
    """The engine, a step of which takes `step_s` on a clock of its own."""

    def __init__(self, engine: OnnxEngine, step_s: float) -> None:
        self._engine, self._step_s, self.now_s = engine, step_s, 100.0
        self.config, self.precision = engine.config, engine.precision

    def initial_state(self) -> State:
        return self._engine.initial_state()

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        self.now_s += self._step_s
        return self._engine.step(inputs, state)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("streams", "step_ms", "missed"), [(4, 9.9, 0), (4, 10.1, 1), (5, 9.9, 5), (1, 41.0, 1)])
def test_the_deadline_is_one_tick_for_all_streams(engine: OnnxEngine, streams: int, step_ms: float, missed: int) -> None:
    slow = OnAClock(engine, step_ms / 1e3)
    ticks = 10
    found = deadlines(slow, streams, ticks / 25, GeneratedMedia(), clock=slow.clock, sleep=slow.sleep)
    assert len(found.latency_s) == ticks * streams
    late = sum(s > 0.04 for s in found.latency_s)
    assert found.missed == late
    # The last stream of each tick is the first to be late; once the work exceeds the time, a backlog makes all late.
    assert late == 0 if not missed else late >= ticks
    if not missed:
        assert max(found.latency_s) == pytest.approx(streams * step_ms / 1e3)


def test_pacing_counts_no_warm_up(engine: OnnxEngine) -> None:
    slow, golden = OnAClock(engine, 0.010), one_tick(engine)
    begun = slow.now_s
    assert paced(slow, [golden], 25.0, 5, warm=3, clock=slow.clock, sleep=slow.sleep) == pytest.approx([0.010] * 5)
    assert slow.now_s - begun == pytest.approx(8 * 0.04 + 0.010)


def one_tick(engine: OnnxEngine) -> StepInputs:
    from clcr_edge.packets import AudioChunk
    from clcr_edge.runtime.session import step_inputs
    from clcr_edge.runtime.ticker import Ticker

    ticker = Ticker(engine.config.tick)
    ticker.push_audio(AudioChunk(np.zeros(640, np.float32), 16_000, 0.0))
    return step_inputs(ticker.cut(), engine.config)


def test_worst_has_the_maximum() -> None:
    assert worst([0.001] * 99 + [0.005]) == {"n": 100, "p50_ms": 1.0, "p90_ms": 1.0, "p99_ms": 1.04, "max_ms": 5.0}


def test_generated_media_go_through_the_live_path(engine: OnnxEngine) -> None:
    begun = time.monotonic()
    found = run_live(engine, 1.0, None, None, GeneratedMedia())
    assert time.monotonic() - begun >= 1.9
    assert len(found.step_s) == 25
    for modality in ("vision", "audio"):
        assert len(found.age_s[modality]) == 25
        assert min(found.age_s[modality]) > 0
        assert np.median(found.age_s[modality]) < 0.5
    assert found.age_s["language"] == []
    assert 0 < found.cpu_share < 2


def test_a_file_that_is_too_short_is_said(engine: OnnxEngine, tmp_path: Path) -> None:
    from clcr_edge.runtime.sources import plan_sources

    clip = make_clip(tmp_path / "a.wav", video_s=0, audio=noise(0.5))
    with pytest.raises(EngineError, match="give a longer file"):
        run_live(engine, 1.0, plan_sources(None, str(clip), no_camera=True), None, GeneratedMedia())


def test_a_cold_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such"):
        cold_start([str(tmp_path / "none"), "--no-stt"], tmp_path, GeneratedMedia(), 0.2)


def test_memory_of_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    assert resident_bytes(tmp_path / "status") is None
    assert (resident_bytes() or 0) > 20e6 or sys.platform != "linux"


@pytest.fixture(scope="module")
def report(proof_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("bench") / "samples.json"
    done = subprocess.run(
        [*COMMAND, str(proof_bundle), "--seconds", "0.6", "--streams", "2", "--json", "--out", str(out), "--no-stt"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return json.loads(line), out


def test_the_report_rests_on_the_samples_it_writes(report: tuple[dict[str, Any], Path], engine: OnnxEngine) -> None:
    found, out = report
    kept = json.loads(out.read_text("utf-8"))
    assert kept["report"] == found
    samples = kept["samples"]
    tables = {
        "back_to_back": found["back_to_back"], "at_pace": found["at_pace"], "streams": found["streams"],
        "live_step": found["live"]["step"], "age_vision": found["live"]["capture_to_prediction"]["vision"],
        "age_audio": found["live"]["capture_to_prediction"]["audio"],
    }  # fmt: skip
    counts = {"back_to_back": 400, "at_pace": 15, "streams": 30, "live_step": 15, "age_vision": 15, "age_audio": 15}
    for name, table in tables.items():
        assert len(samples[name]) == table["n"] == counts[name]
        assert {k: table[k] for k in worst([1.0])} == worst(samples[name])
    assert found["streams"]["missed"] == sum(s > 0.04 for s in samples["streams"])
    assert found["warm_up_dropped"] == {"steps": WARM, "seconds": 1.0}
    assert found["start_up"]["n"] == len(samples["start_up"]) == 3
    assert found["memory"]["stream_state_bytes"] == state_bytes(engine) < 1_000_000
    assert found["memory"]["run_process_bytes"] > 20e6
    assert {"cpu", "python", "load_1min_before"} <= set(found["machine"])
    assert found["live"]["source"] == "generated"
    assert os.listdir(out.parent) == [out.name]


def test_the_page_has_every_figure(report: tuple[dict[str, Any], Path]) -> None:
    text = page(report[0])
    for needed in ("back to back", "at the stream's pace", "capture to prediction, vision", "missed", "start-up", "MB"):
        assert needed in text
    assert f"{report[0]['back_to_back']['max_ms']:.2f}" in text
    assert max(map(len, text.splitlines())) < 140


@pytest.mark.live
def test_progress_on_a_terminal_and_a_file_as_source(proof_bundle: Path, tmp_path: Path) -> None:
    import pty

    clip = make_clip(tmp_path / "a.mp4", video_s=3.0, audio=noise(3.0))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, str(proof_bundle), "--seconds", "0.4", "--camera", str(clip), "--mic", str(clip), "--no-stt"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}, text=True,
    )  # fmt: skip
    os.close(theirs)
    out, _ = process.communicate(timeout=120)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.returncode == 0
    assert "the live path" in shown.decode()
    assert f"live on camera {clip}  mic {clip}" in out
