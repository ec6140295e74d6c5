"""What a running pipeline tells Prometheus and a watchdog, over real HTTP; and what it keeps to itself."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clips import make_clip, noise
from live_rig import camera_server, need_module, sound_server

from clcr_edge import bundle
from clcr_edge.errors import SinkError, UsageError
from clcr_edge.packets import Word
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.ladder import Ladder, Rung
from clcr_edge.runtime.metrics import Metrics
from clcr_edge.runtime.metrics_server import MetricsServer, is_loopback, parse_address
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import Pipeline, replay
from clcr_edge.runtime.readiness import STALLED_S, readiness
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import BOUNDS_S, LatencyHistogram, ages

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "clcr_edge", "run"]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def engine(proof_bundle: Path) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundle.read(proof_bundle))


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def parsed(text: str) -> Samples:
    """By the official parser: (name, labels) -> value."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {(s.name, frozenset(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert found
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_duration_counts_up_to_the_edge_that_it_reaches() -> None:
    found = LatencyHistogram()
    for seconds in (BOUNDS_S[3], BOUNDS_S[3] * 1.01, -1.0, 1_000.0):
        found.add(seconds)
    assert [i for i, n in enumerate(found.counts) if n] == [0, 3, 4, len(BOUNDS_S)]
    assert found.count == 4
    assert found.total_s == pytest.approx(BOUNDS_S[3] * 2.01 + 1_000.0)


@pytest.mark.parametrize(
    ("states", "age_s", "said"),
    [
        ({"camera": "live", "microphone": "live", "speech": "live"}, 0.1, "ready"),
        ({"camera": "live", "microphone": "stalled", "speech": "live"}, 0.1, "degraded: audio"),
        ({"camera": "degraded", "microphone": "live", "speech": "lost"}, 0.1, "degraded: vision, language"),
        ({"camera": "lost", "microphone": "reconnecting", "speech": "live"}, 0.1, "stalled"),
        ({"camera": "live"}, STALLED_S + 0.1, "stalled"),
        ({"camera": "starting"}, None, "starting"),
    ],
)
def test_health_in_one_line(states: dict[str, str], age_s: float | None, said: str) -> None:
    found = readiness({name: SourceState(state) for name, state in states.items()}, age_s)
    assert found.line == said
    assert found.serving == said.startswith(("ready", "degraded"))


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("9100", ("127.0.0.1", 9100), True),
        ("0.0.0.0:9100", ("0.0.0.0", 9100), False),
        ("[::1]:9100", ("::1", 9100), True),
        ("localhost:0", ("localhost", 0), True),
        ("robot.local:80", ("robot.local", 80), False),
    ],
)
def test_an_address_is_loopback_unless_it_says_otherwise(text: str, address: tuple[str, int], loopback: bool) -> None:
    assert parse_address(text) == address
    assert is_loopback(address[0]) == loopback


@pytest.mark.parametrize("text", ["", "x", "65536", ":9100", "host:", "-1", "9100x"])
def test_a_wrong_address_is_a_wrong_call(text: str) -> None:
    with pytest.raises(UsageError, match="give a port"):
        parse_address(text)


# -- a pipeline in this process ----------------------------------------------------------------------------------------


@contextmanager
def serving(pipeline: Pipeline) -> Iterator[tuple[Metrics, str]]:
    metrics = Metrics({"bundle": "test"})
    server = MetricsServer(metrics)
    metrics.attach(pipeline)
    try:
        yield metrics, server.url
    finally:
        server.close()
        pipeline.close()


class Says:
    """A recogniser that hears one word in its first chunk and fails afterwards."""

    state = SourceState.LIVE
    health = SourceHealth(SourceState.LIVE, 0.0)

    def __init__(self) -> None:
        self._words: list[Word] = []

    def push(self, chunk: object) -> None:
        if self.state is SourceState.LIVE:
            self._words.append(Word("sesame", 0.0, 0.03))
            self.state = SourceState.LOST

    def take(self) -> list[Word]:
        words, self._words = self._words, []
        return words

    def close(self) -> None: ...


def test_the_counters_agree_with_the_run_and_hold_no_word(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=1.0, audio=noise(1.0), fps=50)
    pipeline = replay(Session(engine), camera=clip, mic=clip, speech=Says())
    with serving(pipeline) as (metrics, url):
        assert get(f"{url}/healthz") == (503, "starting\n")
        seen, measured = [], []
        for prediction in pipeline:
            metrics.saw(prediction)
            seen.append(prediction)
            measured.append(pipeline.ages)
        text = get(f"{url}/metrics")[1]
        assert get(f"{url}/healthz") == (200, "degraded: language\n")
    samples, n = parsed(text), len(seen)
    assert of(samples, "clcr_edge_predictions_total") == n
    for label in engine.config.classes:
        assert of(samples, "clcr_edge_labels_total", label=label) == sum(p.label == label for p in seen)
    for stage in ("features", "engine"):
        assert of(samples, "clcr_edge_stage_seconds_count", stage=stage, source="") == n
    # Features and engine are what a step does: together they are its latency, but for packing the result.
    parts = sum(of(samples, "clcr_edge_stage_seconds_sum", stage=s, source="") for s in ("features", "engine"))
    whole = sum(p.latency_ms for p in seen) / 1e3
    assert 0.5 * whole < parts <= whole
    for source in ("camera", "microphone"):
        assert of(samples, "clcr_edge_stage_seconds_count", stage="decode", source=source) >= n
        assert of(samples, "clcr_edge_stage_seconds_count", stage="capture", source=source) >= 25
        assert of(samples, "clcr_edge_source_state", source=source, state="live") == 1
    assert of(samples, "clcr_edge_frames_used_total") + of(samples, "clcr_edge_frames_dropped_total", reason="superseded") == 50
    assert of(samples, "clcr_edge_frames_used_total") == pipeline.summary.frames_used
    assert of(samples, "clcr_edge_words_used_total") == 1
    assert of(samples, "clcr_edge_capture_to_prediction_seconds_count", modality="language") == 1
    for modality in ("vision", "audio"):
        total = sum(found[modality] for found in measured if modality in found)
        assert of(samples, "clcr_edge_capture_to_prediction_seconds_sum", modality=modality) == pytest.approx(total)
    last = seen[-1]
    for level, shares in last.participation.items():
        for modality, share in shares.items():
            key = {"level": level, "modality": modality}
            assert of(samples, "clcr_edge_participation_ratio", **key) == pytest.approx(share)
    assert of(samples, "clcr_edge_source_state", source="speech", state="lost") == 1
    assert of(samples, "process_resident_memory_bytes") > 20e6
    assert "sesame" not in text


def test_the_rung_and_the_ticks_passed_over_are_told(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=0.4, audio=noise(0.4))
    session = Session(engine, Ladder(engine, (Rung("half-rate", tick_every=2, saving=0.5),), {}))
    pipeline = replay(session, camera=clip, mic=clip, fast=True)
    with serving(pipeline) as (metrics, url):
        assert of(parsed(get(f"{url}/metrics")[1]), "clcr_edge_rung") == 0
        session.rung = 1
        for prediction in pipeline:
            metrics.saw(prediction)
            assert prediction.rung == 1
        samples = parsed(get(f"{url}/metrics")[1])
    assert of(samples, "clcr_edge_rung") == 1
    assert of(samples, "clcr_edge_ticks_skipped_total") == pipeline.summary.ticks_skipped >= 5


def test_ages_are_counted_from_capture_to_now(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=0.4, audio=noise(0.4))
    with replay(Session(engine), camera=clip, mic=clip, fast=True) as pipeline:
        last = list(pipeline)[-1]
    assert pipeline.ages == {}  # files that do not run in real time have no age
    assert pipeline.now_s is None
    words = [Word("a", 0.0, last.t_s - 0.5), Word("b", 0.0, last.t_s - 0.2)]
    found = ages(last, words, last.t_s + 0.01)
    assert found["language"] == pytest.approx(0.21)
    assert found["audio"] == pytest.approx(0.01 + (last.age_s["audio"] or 0.0))
    assert found["vision"] == pytest.approx(0.01 + (last.age_s["vision"] or 0.0))
    assert "language" not in ages(last, [], last.t_s)


def test_clients_that_say_nothing_cannot_pile_up(engine: OnnxEngine, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", video_s=0, audio=noise(0.2))
    with serving(replay(Session(engine), mic=clip, fast=True)) as (_, url):
        where = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        idle = [socket.create_connection(where, timeout=5) for _ in range(4)]
        time.sleep(0.2)
        with socket.create_connection(where, timeout=5) as further:
            assert further.recv(1) == b""  # cut off at once
        for client in idle:
            client.close()
        time.sleep(0.2)
        assert get(f"{url}/healthz")[0] == 503
        assert get(f"{url}/else") == (404, "there are /metrics and /healthz\n")


def test_a_port_that_is_taken_is_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SinkError, match=rf"127\.0\.0\.1:{port} cannot be had \(Address already in use\)"):
            MetricsServer(Metrics({}), port=port)


# -- the command -------------------------------------------------------------------------------------------------------


def run_command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, check=False, timeout=60)


def test_a_taken_port_is_one_line_and_nothing_is_opened(proof_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_command(proof_bundle, "--camera", "http://127.0.0.1:9/", "--metrics", taken.getsockname()[1])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("clcr-edge: metrics: 127.0.0.1:")
    assert line.endswith("name another port with --metrics")


def test_a_wrong_port_is_a_wrong_call(proof_bundle: Path) -> None:
    done = run_command(proof_bundle, "--metrics", "metrics")
    assert done.returncode == 2
    assert done.stderr.startswith("clcr-edge: --metrics metrics: give a port (9100)")


def test_without_the_client_library_one_line_says_what_to_install(proof_bundle: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        f"sys.argv = ['clcr-edge', 'run', {str(proof_bundle)!r}, '--metrics', '0']\n"
        "from clcr_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("clcr-edge: metrics: the prometheus-client package is not installed; pip install 'clcr-edge[m")


def test_to_the_network_only_with_a_notice(proof_bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", video_s=0, audio=noise(0.2))
    opened = ": open to the network, whoever reaches it reads label counts and source states"
    for host, said in (("", ""), ("0.0.0.0:", opened)):
        done = run_command(proof_bundle, "--mic", clip, "--no-stt", "--fast", "--metrics", f"{host}0")
        assert done.returncode == 0
        first, summary = done.stderr.splitlines()
        assert re.fullmatch(rf"clcr-edge: metrics at http://[\d.]+:\d+/metrics{said}", first)
        assert "predictions" in summary


def test_what_is_said_stays_out_of_the_metrics(engine: OnnxEngine) -> None:
    need_module("vosk")
    from clcr_edge.runtime.speech import open_speech

    clip = ROOT / "examples" / "demo.mp4"
    pipeline = replay(Session(engine), camera=clip, mic=clip, speech=open_speech(live=False), fast=True)
    heard: set[str] = set()
    with serving(pipeline) as (metrics, url):
        for prediction in pipeline:
            metrics.saw(prediction)
            heard |= {w.text for w in pipeline.new_words}
            if prediction.t_s > 7.5:
                break
        text = get(f"{url}/metrics")[1]
    assert {"hello", "three"} <= heard
    assert of(parsed(text), "clcr_edge_words_used_total") >= 3
    assert not [word for word in heard if re.search(rf"\b{word}\b", text)]


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.live
def test_health_follows_the_devices(proof_bundle: Path) -> None:
    with sound_server() as sound, camera_server() as camera:
        process = subprocess.Popen(
            [*COMMAND, str(proof_bundle), "--camera", camera.url, "--no-stt", "--json", "--metrics", "0"],
            env=sound.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split(" at ")[1].strip().removesuffix("/metrics")

            def wait_for(status: int, line: str) -> None:
                deadline = time.monotonic() + 15
                while (found := get(f"{url}/healthz")) != (status, f"{line}\n"):
                    assert time.monotonic() < deadline, found
                    time.sleep(0.1)

            wait_for(200, "ready")
            time.sleep(1.0)
            samples = parsed(get(f"{url}/metrics")[1])
            for source in ("camera", "microphone"):
                assert of(samples, "clcr_edge_stage_seconds_count", stage="capture", source=source) > 10
                assert of(samples, "clcr_edge_stage_seconds_count", stage="decode", source=source) > 10
            for modality in ("vision", "audio"):
                count = of(samples, "clcr_edge_capture_to_prediction_seconds_count", modality=modality)
                total_s = of(samples, "clcr_edge_capture_to_prediction_seconds_sum", modality=modality)
                assert 0 < total_s / count < 0.5
            assert of(samples, "clcr_edge_stage_seconds_count", stage="sink", source="") > 10
            sound.kill()
            wait_for(200, "degraded: audio")
            camera.stop()
            wait_for(503, "stalled")
            sound.start()
            wait_for(200, "degraded: vision")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert process.returncode == 0
