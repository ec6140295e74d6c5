"""What is recorded replays bit for bit: odd media, kills, full disks, slow disks; and what is no recording is one line."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip, noise

from clcr_edge import bundle as bundles
from clcr_edge import toml_io
from clcr_edge.cli import main
from clcr_edge.commands.replay import about
from clcr_edge.errors import RecordingError, UsageError
from clcr_edge.features import luma_square
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime import recorder as recorder_module
from clcr_edge.runtime.feed import Batch, Listener
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.ladder import Ladder, Rung, open_ladder, to_table
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import Pipeline
from clcr_edge.runtime.recorded_pictures import luma_of
from clcr_edge.runtime.recorder import Recorder
from clcr_edge.runtime.recording import Recording
from clcr_edge.runtime.replaying import OF_THE_DEVICE, REPLAYED, Compared, Difference, replay_recording
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.shedding import Shedding
from clcr_edge.runtime.source_state import SourceState

COMMAND = [sys.executable, "-m", "clcr_edge"]


class OddFeed:
    """A camera that changes its resolution and stamps, a microphone with holes and ragged chunks, a halt in the middle."""

    frames_dropped = 0
    states: dict[str, Any] = {}  # noqa: RUF012 - what the protocol asks for
    health: dict[str, Any] = {}  # noqa: RUF012
    drift_ppm = None
    audio_missed = 0
    problem = None

    def __init__(self, ticks: int, seed: int = 0) -> None:
        self.start_s = 1_000.0 + 1 / 3
        self._rng = np.random.default_rng(seed)
        self._ticks = ticks
        self._count = self._seq = 0
        self._heard_s = self.start_s

    def collect(self, end_s: float) -> Batch | None:
        self._count += 1
        if self._count > self._ticks:
            return None
        rng, batch = self._rng, Batch()
        if self._count == 2 * self._ticks // 3:
            batch.restart_s = end_s + 7.123
            end_s = self._heard_s = batch.restart_s
        for _ in range(rng.choice([0, 1, 1, 2])):
            shape = [(48, 64), (31, 47), (90, 60)][self._count * 3 // (self._ticks + 1)]
            image = rng.integers(0, 256, (*shape, 3), np.uint8)
            batch.frames.append(VideoFrame(image, end_s - float(rng.random()) * 0.06, self._seq))
            self._seq += 1
        if self._count % 11 == 0:
            self._heard_s += 0.08  # a hole
        while self._heard_s < end_s + 0.02:
            samples = rng.standard_normal(int(rng.integers(1, 900))).astype(np.float32) * np.float32(0.1)
            batch.chunks.append(AudioChunk(samples, 16_000, self._heard_s + float(rng.normal(0, 1e-3))))
            self._heard_s += len(samples) / 16_000
        return batch

    def close(self) -> None:
        pass


class OddSpeech:
    """A word now and then, late."""

    state = SourceState.LIVE
    health = SourceHealth(SourceState.LIVE, 0.0)

    def __init__(self) -> None:
        self._count = 0

    def push(self, chunk: AudioChunk) -> None:
        self._count += 1

    def take(self) -> list[Word]:
        return [Word(f"wörd\n{self._count}", 1_000.1, 1_000.2 + self._count / 7, 1 / 3)] if self._count % 5 == 4 else []

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle(proof_bundle: Path) -> bundles.Bundle:
    return bundles.read(proof_bundle)


@pytest.fixture(scope="module")
def engine(bundle: bundles.Bundle) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundle)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", video_s=4.0, audio=noise(4.0))


@pytest.fixture(scope="module")
def other_bundle(bundle: bundles.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same student with other weights."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(bundle.graph("fp32"))
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(weights * np.float32(1.3), tensor.name))

    def fill(folder: Path) -> dict[str, object]:
        onnx.save(model, folder / "step.fp32.onnx")
        return {"chosen": {"precision": "fp32", "why": "only fp32"}}

    return bundles.write(
        tmp_path_factory.mktemp("other") / "bundle", bundle.config, {"fp32": "step.fp32.onnx"}, fill
    ).path


def record(
    bundle: bundles.Bundle, engine: OnnxEngine, folder: Path, ticks: int = 60, notice: Callable[[str], None] = print
) -> tuple[list[Prediction], Recorder]:
    """A recorded run on odd media."""
    recorder = Recorder(folder, about(bundle, engine), notice)
    pipeline = Pipeline(Session(engine), OddFeed(ticks), OddSpeech(), recorder.listening(Listener()))
    predictions = list(pipeline)
    recorder.close()
    return predictions, recorder


def replayed(folder: Path, engine: OnnxEngine) -> list[Compared]:
    return list(replay_recording(Recording(folder), Session(engine)))


class UpAndDown(Shedding):
    """A load that comes and goes by the tick, whatever the machine does."""

    count = 0

    def observe(self, busy_s: float) -> int:
        self.count += 1
        return (0, 0, 1, 2, 2, 1, 0)[self.count // 6 % 7]


@pytest.fixture
def shed(bundle: bundles.Bundle, engine: OnnxEngine, tmp_path: Path) -> tuple[Recorder, Pipeline, Ladder]:
    """A run about to be recorded that goes up and down its ladder."""
    ladder = Ladder(engine, (Rung("half-rate", tick_every=2, saving=0.5), Rung("quarter-rate", tick_every=4, saving=0.75)), {})
    recorder = Recorder(tmp_path / "r", about(bundle, engine), print)
    listener, shedding = recorder.listening(Listener()), UpAndDown(ladder.costs, 0.04)
    return recorder, Pipeline(Session(engine, ladder), OddFeed(90), OddSpeech(), listener, shedding=shedding), ladder


def test_a_run_that_shed_is_replayed_rung_by_rung_with_the_ticks_it_passed_over(
    engine: OnnxEngine, shed: tuple[Recorder, Pipeline, Ladder]
) -> None:
    recorder, pipeline, ladder = shed
    said = [(p, pipeline.new_words) for p in pipeline]
    predictions = [p for p, _ in said]
    recorder.close()
    assert {p.rung for p in predictions} == {0, 1, 2}
    assert pipeline.summary.ticks_skipped > 10
    ticks = list(replay_recording(Recording(recorder.folder), Session(engine, ladder)))
    assert [t.prediction.tick for t in ticks] == [p.tick for p in predictions]
    assert all(t.identical for t in ticks)
    assert [t.prediction.rung for t in ticks] == [p.rung for p in predictions]
    assert [[*t.words] for t in ticks] == [words for _, words in said], "words of ticks passed over belong to the next"


def test_another_ladder_on_the_same_graph_is_a_comparison(
    bundle: bundles.Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is the same after an export without a ladder, or on a busier day; what rung 1 leaves out is not."""

    def with_ladder(name: str, *rungs: Rung) -> bundles.Bundle:
        path = Path(shutil.copytree(bundle.path, tmp_path / name))
        manifest = path / bundles.MANIFEST
        table = {k: v for k, v in toml_io.loads(manifest.read_text()).items() if k != "ladder"}
        manifest.write_text(toml_io.dumps({**table, "ladder": to_table(rungs)} if rungs else table))
        return bundles.read(path)

    def halves(saving: float) -> tuple[Rung, Rung]:
        return Rung("half-rate", tick_every=2, saving=saving), Rung("quarter-rate", tick_every=4, saving=1.5 * saving)

    own, measured_anew = with_ladder("own", *halves(0.5)), with_ladder("anew", *halves(0.4))
    other = with_ladder("other", Rung("audio-off", audio=False), Rung("half-rate", audio=False, tick_every=2))
    none = with_ladder("none")
    opened = OnnxEngine.from_bundle(own)
    ladder = open_ladder(own, opened)
    assert ladder is not None
    recorder = Recorder(tmp_path / "r", about(own, opened), print)
    shedding, listener = UpAndDown(ladder.costs, 0.04), recorder.listening(Listener())
    pipeline = Pipeline(Session(opened, ladder), OddFeed(90), OddSpeech(), listener, shedding=shedding)
    assert {p.rung for p in pipeline} == {0, 1, 2}
    recorder.close()
    skipped = pipeline.summary.ticks_skipped
    for same in (own, measured_anew):
        code, out, err = call(capfd, monkeypatch, "replay", recorder.folder, "--bundle", same.path)
        assert (code, err) == (0, [])
        assert f"{90 - skipped} ticks and {skipped} passed over, 3.6 s" in out[0]
        assert f"identical, to the last bit  {90 - skipped} of {90 - skipped}" in out
    for differs in (other, none):
        code, out, _ = call(capfd, monkeypatch, "replay", recorder.folder, "--bundle", differs.path)
        assert code == 0
        assert "this bundle has another ladder" in out[-1]
        assert "identical, to the last bit  " in out[4]
        assert "should not be" not in "".join(out)
        code, out, _ = call(capfd, monkeypatch, "replay", recorder.folder, "--bundle", differs.path, "--json")
        assert (code, json.loads(out[-1])["summary"]["same_bundle"]) == (0, False)
    _manifest("ladder_sha256 = ", "of_another_version = ")(recorder.folder)  # as recordings were before
    for path, code in ((own.path, 0), (none.path, 0)):
        assert call(capfd, monkeypatch, "replay", recorder.folder, "--bundle", path)[0] == code


def test_frames_lost_in_ticks_passed_over_are_counted(
    engine: OnnxEngine, shed: tuple[Recorder, Pipeline, Ladder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_WAITING_BYTES", -1)
    recorder, pipeline, ladder = shed
    assert list(pipeline)
    recorder.close()
    ticks = list(replay_recording(Recording(recorder.folder), Session(engine, ladder)))
    assert sum(t.lost for t in ticks) == recorder.frames_lost > 50


@pytest.fixture(scope="module")
def odd(bundle: bundles.Bundle, engine: OnnxEngine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Prediction]]:
    folder = tmp_path_factory.mktemp("odd") / "recording"
    predictions, _ = record(bundle, engine, folder)
    return folder, predictions


@pytest.fixture
def copied(odd: tuple[Path, list[Prediction]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(odd[0], tmp_path / "copy"))


def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, list[str], list[str]]:
    monkeypatch.setattr(sys, "argv", ["clcr-edge", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out.splitlines(), err.splitlines()


# -- the same again ----------------------------------------------------------------------------------------------------


def test_odd_media_replay_bit_for_bit(odd: tuple[Path, list[Prediction]], engine: OnnxEngine) -> None:
    folder, predictions = odd
    again = replayed(folder, engine)
    assert len(again) == len(predictions) == 60
    assert [p.tick for p in predictions] == [*range(39), *range(21)], "the halt began a new stream"
    for then, now in zip(predictions, again, strict=True):
        assert now.identical
        assert now.max_difference == 0.0
        for name in REPLAYED:
            assert getattr(then, name) == getattr(now.prediction, name), name
    assert sum(len(c.words) for c in again) >= 3
    assert len(list(folder.glob("pictures-*.nut"))) == 3, "one file per resolution"
    assert Recording(folder).end.closed


def test_a_media_bit_more_or_less_would_be_seen(odd: tuple[Path, list[Prediction]], engine: OnnxEngine) -> None:
    recording = Recording(odd[0])
    steps = list(recording.steps())

    class Louder:
        """The recording, one sample in the last bit louder."""

        folder, rate_hz, sample_rate_hz = recording.folder, recording.rate_hz, recording.sample_rate_hz

        def steps(self) -> Iterator[Any]:
            for chunk in (p for step in steps[:20] for p in step.packets if isinstance(p, AudioChunk)):
                chunk.samples[0] = np.nextafter(chunk.samples[0], np.float32(9))
            return iter(steps)

    again = list(replay_recording(Louder(), Session(engine)))  # type: ignore[arg-type]
    assert not all(c.identical for c in again)


@pytest.mark.parametrize("shape", [(480, 640), (31, 47), (90, 61), (96, 96)])
def test_the_luma_kept_is_all_that_the_network_sees(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    kept = np.repeat(luma_of(image)[..., None], 3, axis=2)
    for size in (96, 64, 33):
        np.testing.assert_array_equal(luma_square(kept, size), luma_square(image, size))


def test_each_field_of_a_prediction_is_compared_or_known_not_to_be() -> None:
    assert {f.name for f in fields(Prediction)} == {*REPLAYED, *OF_THE_DEVICE}, (
        "a new field: does it follow from what the session was given (REPLAYED), or does it tell of the device?"
    )


def test_a_file_run_replays_and_other_bundles_are_compared(
    clip: Path, proof_bundle: Path, other_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "r"
    code, out, err = call(
        capfd, monkeypatch, "run", proof_bundle, "--camera", clip, "--fast", "--json", "--no-stt", "--record", folder
    )
    assert code == 0
    assert err[-1].startswith(f"clcr-edge: recorded {len(out) / 25:.1f} s in {folder}")
    assert oct(folder.stat().st_mode)[-3:] == "700"
    code, lines, err = call(capfd, monkeypatch, "replay", folder, "--json")
    assert (code, err) == (0, [])
    ticks, summary = [json.loads(line) for line in lines[:-1]], json.loads(lines[-1])["summary"]
    assert [(t["tick"], t["probs"]) for t in ticks] == [(p["tick"], p["probs"]) for p in map(json.loads, out)]
    assert summary["identical"] == summary["ticks"] == len(out)
    assert (summary["closed"], summary["frames_lost"], summary["same_bundle"]) == (True, 0, True)
    code, lines, _ = call(capfd, monkeypatch, "replay", folder, "--bundle", other_bundle, "--json")
    summary = json.loads(lines[-1])["summary"]
    ticks = [json.loads(line) for line in lines[:-1]]
    assert (code, summary["identical"], summary["same_bundle"]) == (0, 0, False)
    assert summary["labels_differ"] == sum(t["label"] != t["recorded_label"] for t in ticks)
    assert summary["max_difference"] == max(t["max_difference"] for t in ticks) > 0.01
    code, page, _ = call(capfd, monkeypatch, "replay", folder, "--bundle", other_bundle)
    assert code == 0
    assert len(page) < 30
    assert f"identical, to the last bit  0 of {len(out)}" in page


def test_stretches_of_other_labels_are_joined_and_bounded() -> None:
    def tick(k: int, then: str, now: str) -> Compared:
        empty: dict[str, Any] = {}
        p = Prediction(k / 25, k, now, {now: 1.0}, True, empty, empty, empty, empty, empty, 1.0, None)
        return Compared(p, (), {"label": then}, then == now, 0.5 if then != now else 0.0, 0)

    found = Difference()
    pairs = [("a", "a"), ("a", "b"), ("a", "b"), ("a", "c"), ("a", "a"), *[("a", "b"), ("a", "a")] * 20]
    for k, (then, now) in enumerate(pairs):
        found.add(tick(k, then, now))
    assert found.runs[:2] == [[1 / 25, 2 / 25, "a", "b"], [3 / 25, 3 / 25, "a", "c"]]
    assert (found.labels_differ, len(found.runs), found.runs_total) == (23, 10, 22)
    assert found.mean_difference == pytest.approx(23 * 0.5 / 45)


# -- broken off --------------------------------------------------------------------------------------------------------


def test_killed_it_replays_up_to_there(clip: Path, proof_bundle: Path, engine: OnnxEngine, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    process = subprocess.Popen(
        [*COMMAND, "run", str(proof_bundle), "--camera", str(clip), "--json", "--no-stt", "--record", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = [json.loads(process.stdout.readline()) for _ in range(40)]
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    recording = Recording(folder)
    assert (recording.end.closed, recording.end.why) == (False, "it was killed")
    again = replayed(folder, engine)
    assert len(again) >= 40, "half a second is time enough to write a tick"
    assert all(c.identical for c in again)
    assert [round(c.prediction.probs["none"], 6) for c in again[:40]] == [p["probs"]["none"] for p in said]


def test_cut_off_anywhere_it_replays_up_to_there(copied: Path, engine: OnnxEngine) -> None:
    events = (copied / "events.jsonl").read_bytes()
    rng = random.Random(0)
    for _ in range(25):
        kept = rng.randrange(len(events))
        (copied / "events.jsonl").write_bytes(events[:kept])
        lines = events[:kept].splitlines(keepends=True)
        whole = sum(line.startswith(b'{"e":"step"') and line.endswith(b"\n") for line in lines)
        assert len(list(Recording(copied).steps())) == whole
    # As after a power cut: the events are there, the newest media are not, and nobody closed it.
    (copied / "events.jsonl").write_bytes(events[: events.rindex(b'{"e":"end"')])
    os.truncate(copied / "sound.au", (copied / "sound.au").stat().st_size // 2)
    again = replayed(copied, engine)
    assert 20 < len(again) < 40
    assert all(c.identical for c in again)


@contextmanager
def small_disk(folder: Path, kind: str) -> Iterator[Callable[[], None] | None]:
    """A file system of 256 KB on `folder`, or a limit of 128 KB a file for the command."""
    folder.mkdir()
    if kind == "limit":
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (128 << 10, 128 << 10))
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "clcr-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        if "system" in os.environ.get("CLCR_EDGE_REQUIRE", ""):
            yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (128 << 10, 128 << 10))  # a gate without root
            return
        pytest.skip("mounting a small tmpfs is not allowed here (needs root); the file size limit is tested instead")
    try:
        yield None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["limit", "tmpfs"])
def test_a_full_disk_is_one_notice_and_predictions_go_on(
    kind: str, clip: Path, proof_bundle: Path, engine: OnnxEngine, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", kind) as limit:
        folder = tmp_path / "disk" / "r"
        source = ["--camera", str(clip), "--fast", "--no-stt"]
        done = subprocess.run(
            [*COMMAND, "run", str(proof_bundle), *source, "--json", "--record", str(folder)],
            preexec_fn=limit, capture_output=True, text=True, check=False, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= 100, "every prediction of the clip"
        notices = [line for line in done.stderr.splitlines() if "recording stopped" in line]
        assert len(notices) == 1, done.stderr
        why = "No space left on device" if limit is None else "File too large"
        assert f"recording stopped: {why}" in notices[0]
        assert (Recording(folder).end.closed, Recording(folder).end.why) == (True, why)
        again = replayed(folder, engine)
        assert 20 < len(again) < 100
        assert all(c.identical for c in again)


def test_a_slow_disk_delays_no_tick_and_what_is_lost_is_counted(
    bundle: bundles.Bundle, engine: OnnxEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    write = recorder_module._write
    monkeypatch.setattr(recorder_module, "MOST_WAITING_BYTES", 200_000)
    recorder = Recorder(tmp_path / "r", about(bundle, engine))
    monkeypatch.setattr(recorder_module, "_write", lambda fd, data: (free.wait(30), write(fd, data))[1])  # the disk hangs
    pipeline = Pipeline(Session(engine), OddFeed(60), None, recorder.listening(Listener()))
    begun = time.monotonic()
    predictions = list(pipeline)
    assert time.monotonic() - begun < 20, "it would have waited for the disk"
    assert not free.is_set()
    free.set()
    recorder.close()
    assert (len(predictions), recorder.problem) == (60, None)
    assert recorder.frames_lost > 5
    assert "incomplete" in recorder.line
    again = replayed(tmp_path / "r", engine)
    assert len(again) == 60
    assert sum(c.lost for c in again) == recorder.frames_lost


def test_a_disk_that_hangs_for_ever_ends_the_recording_only(
    bundle: bundles.Bundle, engine: OnnxEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, notices = threading.Event(), list[str]()
    write = recorder_module._write
    monkeypatch.setattr(recorder_module, "MOST_WAITING_ITEMS", 100)
    recorder = Recorder(tmp_path / "r", about(bundle, engine), notices.append)
    monkeypatch.setattr(recorder_module, "_write", lambda fd, data: (free.wait(30), write(fd, data))[1])
    predictions = list(Pipeline(Session(engine), OddFeed(60), None, recorder.listening(Listener())))
    assert len(predictions) == 60
    assert recorder._queue.qsize() <= 101
    free.set()
    recorder.close()
    (notice,) = notices
    assert "the disk does not keep up" in notice
    assert Recording(tmp_path / "r").end.why == "the disk does not keep up"
    again = replayed(tmp_path / "r", engine)
    assert 5 < len(again) < 60
    assert all(c.identical for c in again)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused(
    clip: Path, proof_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("letters")
    code, out, err = call(capfd, monkeypatch, "run", proof_bundle, "--camera", clip, "--record", tmp_path)
    assert (code, out, err) == (
        2, [], [f"clcr-edge: --record {tmp_path}: there is something already; name a new or an empty folder"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="there is something already"):
        recorder_module.check_free(tmp_path / "link")


def test_a_run_that_never_began_leaves_the_folder_free(
    proof_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        code, _, err = call(
            capfd, monkeypatch, "run", proof_bundle, "--camera", "http://127.0.0.1:9/x", "--no-mic", "--record", tmp_path / "r"
        )
        assert code == 1
        (line,) = err
        assert "cannot be opened" in line


def _line(number: int, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
        at = next(i for i in range(number, len(lines)) if old in lines[i])
        lines[at] = lines[at].replace(old, new, 1)
        (folder / "events.jsonl").write_bytes(b"".join(lines))

    return change


def _manifest(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "recording.toml"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


def _flip(name: str, at: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(at * len(data))] ^= 1
        (folder / name).write_bytes(data)

    return change


def _link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: shutil.rmtree(f), "no such recording"),
        (lambda f: (f / "recording.toml").unlink(), "not there"),
        (lambda f: (f / "events.jsonl").unlink(), "not there"),
        (lambda f: (f / "recording.toml").write_text("a = [", "utf-8"), "not readable as TOML"),
        (lambda f: os.truncate(f / "recording.toml", 2 << 20), "this is no manifest"),
        (_manifest("schema = 1", "schema = 2"), "schema 2, but this version reads 1; update clcr-edge"),
        (_manifest('precision = "fp32"', "precision = 32"), "[engine] needs"),
        (_manifest("rate_hz = 25", "rate_hz = 30"), "recorded at 30 ticks a second"),
        (_line(20, b'"e":"audio"', b'"e":"odour"'), "damaged"),
        (_line(20, b'{"e"', b'{"e'), "damaged"),
        (_line(20, b'"n":', b'"n":9999999'), "damaged"),
        (_line(20, b'"n":', b'"n":-'), "damaged"),
        (_line(20, b'"side":', b'"side":99999'), "damaged"),
        (_line(20, b'"file":', b'"file":"../x",":":'), "damaged"),
        (_line(20, b'"t_s":', b'"t_s":1e999,"x":'), "damaged"),
        (_line(20, b'{"e"', b"[" * 3_000 + b'{"e"'), "damaged"),
        (_line(20, b'{"e"', b" " * (1 << 20) + b'{"e"'), "no line of a recording"),
        (_flip("sound.au", 0.5), "does not hold the samples recorded"),
        (_flip("pictures-0001.nut", 0.5), "damaged"),
        (lambda f: os.truncate(f / "sound.au", 5_000), "sound.au is too short"),
        (lambda f: shutil.copy(f / "pictures-0003.nut", f / "pictures-0002.nut"), "copy the recording again"),
        (_link("sound.au"), "a link"),
        (_link("pictures-0001.nut"), "a link"),
        (_link("recording.toml"), "a link"),
        (_manifest("graph_sha256 = \"", "graph_sha256 = \"0"), "was exported anew since"),
    ],
)
def test_what_is_no_whole_recording_is_one_line(
    spoil: Callable[[Path], None], said: str, copied: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(copied)
    code, _, err = call(capfd, monkeypatch, "replay", copied, "--json")
    assert code == 1
    (line,) = err
    assert said in line


def test_a_prediction_that_is_not_the_recorded_one_is_exit_1(
    copied: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _line(30, b'"ready":true', b'"ready":false')(copied)
    code, out, _ = call(capfd, monkeypatch, "replay", copied)
    assert code == 1
    assert "identical, to the last bit  59 of 60" in out
    assert "this should not be" in out[-1]
    _manifest("ONNX Runtime", "ONNX Runtime of long ago")(copied)
    code, out, _ = call(capfd, monkeypatch, "replay", copied)
    assert "may differ in the last bits" in out[-1]


def test_a_bundle_that_went_away_is_named(copied: Path) -> None:
    from clcr_edge.commands.replay import _bundle

    _manifest('path = "', 'path = "/nowhere')(copied)
    with pytest.raises(RecordingError, match=r"is not here; name a bundle with --bundle"):
        _bundle(Recording(copied), None)
