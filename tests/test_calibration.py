"""Calibration: the four methods, the choice between them, bounded memory, and recordings of the device's own."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from clips import make_clip, noise  # noqa: E402
from live_rig import camera_server, sound_server, write_wav  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from clcr_edge import toml_io  # noqa: E402
from clcr_edge.calibration.choose import Samples, choose_ranges  # noqa: E402
from clcr_edge.calibration.folder import calibration_set  # noqa: E402
from clcr_edge.calibration.media_check import MediaCheck  # noqa: E402
from clcr_edge.calibration.ranges import METHODS, Range, RangeObserver, rounded  # noqa: E402
from clcr_edge.calibration.recorded import MANIFEST, CalibrationWriter, RecordedInputs, config_hashes  # noqa: E402
from clcr_edge.calibration.recordings import recorded_set  # noqa: E402
from clcr_edge.calibration.units import ConvSite  # noqa: E402
from clcr_edge.config import StudentConfig, TickConfig, to_table  # noqa: E402
from clcr_edge.errors import DataError  # noqa: E402
from clcr_edge.packets import Modality  # noqa: E402
from clcr_edge.runtime.engine import StepInputs  # noqa: E402

CONFIG = StudentConfig(classes=("a", "b", "none"), none_class="none")


def command(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clcr_edge", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def inputs(tick: int, **changed: object) -> StepInputs:
    rng, t = np.random.default_rng(tick), CONFIG.tick
    values = {
        "frame": rng.random((1, 1, t.image_size, t.image_size), np.float32),
        "fbank": rng.standard_normal((t.fbank_frames, t.n_mels)).astype(np.float32),
        "ngrams": np.full((t.words_per_tick, t.ngrams_per_word), tick % 7, np.int32),
        "confidence": np.zeros(t.words_per_tick, np.float32),
        "word_age": np.zeros(t.words_per_tick, np.float32),
        "present": np.ones(2, np.float32),
        "n_new": np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]], np.int32),
    }
    return StepInputs(**{**values, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder, as far as `calibrate` reads it: the configuration."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "student.toml").write_text(toml_io.dumps({"student": to_table(CONFIG)}))
    return folder


@pytest.fixture(scope="module")
def recording(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(clip, calibration folder made from it by the command, what the command said)."""
    folder = tmp_path_factory.mktemp("recording")
    clip = make_clip(folder / "room.mp4", video_s=12.0, audio=noise(12.0))
    out = folder / "calibration"
    done = command("calibrate", checkpoint, "--record", 11, "--camera", clip, "--no-stt", "--out", out, cwd=folder)
    assert done.returncode == 0, done.stderr
    return clip, out, done.stdout + done.stderr


class TestMethods:
    def test_they_differ_on_a_heavy_tail_and_min_max_is_exact(self) -> None:
        values = np.random.default_rng(0).standard_t(2, 200_000).astype(np.float32)
        observer = RangeObserver()
        observer.see(values)
        found = observer.candidates()
        assert set(found) == set(METHODS)
        assert (found["min-max"].low, found["min-max"].high) == (values.min(), values.max())
        assert len({round(r.high, 3) for r in found.values()}) >= 3
        assert found["mse"].high < found["min-max"].high
        assert found["entropy"].high < found["min-max"].high

    def test_percentile_clips_its_share(self) -> None:
        values = np.random.default_rng(1).standard_normal(1_000_000).astype(np.float32)
        observer = RangeObserver()
        observer.see(values)
        found = observer.candidates()["percentile"]
        clipped = float(np.mean((values < found.low) | (values > found.high)))
        assert 5e-5 < clipped < 1.6e-4

    def test_mse_is_the_least_of_all_on_the_values_themselves(self) -> None:
        values = np.random.default_rng(2).laplace(0, 1, 300_000).astype(np.float32)
        for symmetric in (False, True):
            observer = RangeObserver()
            observer.see(values)
            found = observer.candidates(symmetric)
            errors = {m: float(((rounded(values, r, symmetric) - values) ** 2).mean()) for m, r in found.items()}
            assert errors["mse"] <= 1.02 * min(errors.values())

    def test_entropy_keeps_plain_data_and_drops_what_never_comes(self) -> None:
        plain, odd = RangeObserver(), RangeObserver()
        values = np.random.default_rng(3).uniform(-1, 1, 400_000).astype(np.float32)
        plain.see(values)
        odd.see(values)
        odd.see(np.array([9.0, -9.0], np.float32))
        assert plain.candidates()["entropy"].high > 0.95
        assert odd.candidates()["entropy"].high < 4.0

    def test_symmetric_ranges_are(self) -> None:
        observer = RangeObserver()
        observer.see(np.abs(np.random.default_rng(4).standard_normal(10_000)).astype(np.float32))
        assert all(r.low == -r.high for r in observer.candidates(symmetric=True).values())
        assert all(r.low == 0.0 for r in observer.candidates().values())

    def test_a_histogram_does_not_grow_when_its_range_does(self) -> None:
        observer, rng = RangeObserver(), np.random.default_rng(5)
        total = 0
        for power in range(-6, 7):
            values = (rng.standard_normal(1_000) * 10.0**power).astype(np.float32)
            observer.see(values)
            total += len(values)
        counts = observer._counts
        assert counts.nbytes == 2_048 * 8
        assert counts.sum() == total, "no value is lost when bins are merged"

    def test_samples_are_bounded_and_spread(self) -> None:
        samples = Samples()
        for tick in range(5_000):
            samples.see(np.full((1, 2), tick, np.float32))
        kept = samples.stacked()[:, 0]
        assert 16 <= len(kept) <= 32
        assert kept.max() > 4_000
        assert np.ptp(np.diff(kept)) == 0


def test_the_choice_is_what_serves_the_reader_not_the_tensor() -> None:
    """Channel 0 carries large values that the convolution ignores; channel 1 small ones, on which all depends."""
    rng = np.random.default_rng(6)
    weight = np.array([1e-4, 1.0], np.float32).reshape(1, 2, 1, 1)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    observer, samples = RangeObserver(), Samples()
    for _ in range(64):
        value = np.stack([rng.standard_normal((8, 8)) ** 3 * 8, rng.standard_normal((8, 8))])[None].astype(np.float32)
        observer.see(value)
        samples.see(value)
    site = ConvSite("a", Modality.VISION, "conv", "x", "y")
    chosen = choose_ranges(model, [site], {"x": observer}, {"x": samples}, symmetric=False)["x"]
    tensor = {m: observer.error(r) for m, r in observer.candidates().items()}
    assert min(tensor, key=lambda m: tensor[m]) == "mse"
    assert chosen.method != "mse", chosen.db
    assert chosen.db[chosen.method] > chosen.db["mse"] + 3
    # Where nothing that is known reads a tensor, its own error decides.
    assert choose_ranges(model, [], {"x": observer}, {}, symmetric=False)["x"].method == "mse"


class TestMedia:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"fbank": np.full((4, 40), -15.9, np.float32)}, "audio is silence throughout"),
            ({"frame": np.zeros((1, 1, 96, 96), np.float32)}, "vision is one even shade throughout"),
            ({"present": np.array([1, 0], np.float32)}, "0 with sound; both are needed"),
        ],
    )
    def test_silence_darkness_and_absence_are_said(self, changed: dict[str, object], said: str) -> None:
        media = MediaCheck()
        for tick in range(20):
            media.see(inputs(tick, **changed))
        with pytest.raises(DataError, match=said):
            media.check()

    def test_nan_is_said_with_its_tick(self) -> None:
        media = MediaCheck()
        media.see(inputs(0))
        with pytest.raises(DataError, match="tick 1: NaN or infinite audio"):
            media.see(inputs(1, fbank=np.full((4, 40), np.nan, np.float32)))

    def test_what_is_absent_may_be_anything(self) -> None:
        media = MediaCheck()
        for tick in range(20):
            media.see(inputs(tick))
        media.see(inputs(20, fbank=np.full((4, 40), np.nan, np.float32), present=np.array([1, 0], np.float32)))
        media.check()
        assert media.counts == {Modality.VISION: 21, Modality.AUDIO: 20}


class TestRecording:
    def test_it_says_what_it_keeps_before_it_keeps_it(self, recording: tuple[Path, Path, str]) -> None:
        said = recording[2]
        assert "96 x 96 grey pictures" in said
        assert "not kept: sound, colour, text" in said
        assert "275 ticks, 275 with a picture, 275 with sound, 0 words" in said
        limit = float(said.split("at most ")[1].split(" MB")[0])
        assert sum(p.stat().st_size for p in recording[1].iterdir()) < limit * 1e6

    def test_it_holds_the_inputs_that_a_run_would_see(self, recording: tuple[Path, Path, str]) -> None:
        clip, out, _ = recording
        kept = [list(s) for s in RecordedInputs(out).streams(CONFIG)]
        folder = clip.parent / "media"
        folder.mkdir(exist_ok=True)
        (folder / clip.name).write_bytes(clip.read_bytes())
        direct = list(next(recorded_set(folder).streams(CONFIG)))
        assert len(kept) == 1, "one recording is one stream, whatever the number of its parts"
        for one, other in zip(kept[0], direct, strict=False):
            np.testing.assert_allclose(one.frame, other.frame, atol=0.5 / 255 + 1e-6)
            for name in ("fbank", "ngrams", "present", "n_new"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))

    def test_only_what_is_needed_is_kept_and_only_for_us(self, recording: tuple[Path, Path, str]) -> None:
        names = sorted(p.name for p in recording[1].iterdir())
        assert names == [MANIFEST, "inputs-0000.npz", "inputs-0001.npz"]
        assert recording[1].stat().st_mode & 0o077 == 0

    def test_another_preprocessing_or_model_is_refused_by_hash(self, recording: tuple[Path, Path, str]) -> None:
        found = calibration_set(recording[1])
        found.check(CONFIG)
        hashes = config_hashes(CONFIG)
        with pytest.raises(DataError, match=f"another preprocessing .hash {hashes['preprocessing'][:12]}"):
            found.check(dataclasses.replace(CONFIG, tick=TickConfig(mel_high_hz=7_000.0)))
        with pytest.raises(DataError, match="another model"):
            found.check(dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, strides=(1, 2, 8))))

    @pytest.mark.parametrize("damage", ["short", "bit", "gone", "manifest", "schema", "outside"])
    def test_damage_is_one_line(self, recording: tuple[Path, Path, str], tmp_path: Path, damage: str) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in recording[1].iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        part, manifest = copy / "inputs-0001.npz", copy / MANIFEST
        content, text = part.read_bytes(), manifest.read_text()
        said = {
            "short": "bytes, but the manifest says",
            "bit": "SHA-256",
            "gone": "not there",
            "manifest": "not readable as TOML",
            "schema": "schema 2",
            "outside": "not there",
        }[damage]
        if damage == "short":
            part.write_bytes(content[:-9])
        elif damage == "bit":
            part.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        elif damage == "gone":
            part.unlink()
        elif damage == "manifest":
            manifest.write_text(text[: len(text) // 2] + "[")
        elif damage == "schema":
            manifest.write_text(text.replace("schema = 1", "schema = 2"))
        else:
            manifest.write_text(text.replace('"inputs-0001.npz"', '"../inputs-0001.npz"'))
        with pytest.raises(DataError, match=said):
            calibration_set(copy)

    @pytest.mark.parametrize(
        ("field", "change", "said"),
        [
            (None, lambda content: content[: len(content) // 2], "not readable as step inputs"),
            (None, lambda _: b"", "not readable as step inputs"),
            (None, lambda content: content[:2000] + bytes(50) + content[2050:], "not readable as step inputs"),
            ("present", lambda a: a[:5], r"present is float32 of shape \(5, 2\)"),
            ("n_new", lambda a: a.astype(np.float32), "n_new is float32"),
            ("confidence", lambda a: np.full_like(a, np.nan), "NaN or infinity in confidence"),
            ("fbank", lambda a: np.full_like(a, np.inf), "NaN or infinity in fbank"),
            ("ngrams", lambda a: a + np.int32(1 << 20), "ngrams outside of 0 to 4095"),
        ],
    )
    def test_a_part_that_is_not_what_its_hash_vouches_for_is_one_line(
        self, recording: tuple[Path, Path, str], tmp_path: Path, field: str | None, change: Callable[[Any], Any], said: str
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(recording[1], copy)
        manifest = toml_io.loads((copy / MANIFEST).read_text())
        name = sorted(manifest["parts"])[0]
        content = (copy / name).read_bytes()
        if field is None:
            content = change(content)
        else:
            with np.load(copy / name) as data:
                columns = {**data, field: change(data[field])}
            made = io.BytesIO()
            np.savez_compressed(made, allow_pickle=False, **columns)
            content = made.getvalue()
        (copy / name).write_bytes(content)
        manifest["parts"][name] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (copy / MANIFEST).write_text(toml_io.dumps(manifest))
        with pytest.raises(DataError, match=said):
            list(next(RecordedInputs(copy).streams(CONFIG)))

    def test_silence_leaves_nothing_behind(self, checkpoint: Path, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "quiet.mp4", video_s=11.0, audio=np.zeros(16_000 * 11, np.float32))
        done = command("calibrate", checkpoint, "--camera", clip, "--no-stt", "--out", tmp_path / "c", cwd=tmp_path)
        assert done.returncode == 1
        assert "audio is silence throughout" in done.stderr.splitlines()[-1]
        assert [p.name for p in tmp_path.iterdir()] == ["quiet.mp4"]

    def test_wrong_calls(self, checkpoint: Path, tmp_path: Path) -> None:
        short = make_clip(tmp_path / "short.mp4", video_s=2.0, audio=noise(2.0))
        (tmp_path / "bad.mp4").write_text("no film")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        base = ("calibrate", checkpoint, "--no-stt", "--camera", short)
        for arguments, code, said in (
            ((*base, "--record", 5), 2, "--record 5: give 10 to 600"),
            ((*base, "--out", tmp_path / "c"), 1, "only 2."),
            ((*base, "--out", tmp_path / "mine"), 1, "is no calibration folder"),
            ((*base[:-1], tmp_path / "bad.mp4"), 1, "bad.mp4: cannot be read as a media file"),
            ((*base[:-1], tmp_path / "gone.mp4"), 1, "gone.mp4: no such file"),
        ):
            done = command(*arguments, cwd=tmp_path)
            assert ("recording" in done.stderr) == (said == "only 2.")  # not announced before it can begin
            assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
            assert said in done.stderr.splitlines()[-1]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mp4", "mine", "short.mp4"]

    def test_a_full_disk_and_an_interruption_leave_the_old_one_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def recorded(out: Path, count: int) -> None:
            with CalibrationWriter(out, CONFIG) as writer:
                for tick in range(count):
                    writer.add(inputs(tick))
                writer.finish({})

        out = tmp_path / "c"
        recorded(out, 260)
        before = (out / MANIFEST).read_bytes()

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(np, "savez_compressed", full)
            with pytest.raises(DataError, match=r"c: cannot be written \(No space left on device\)"):
                recorded(out, 260)
        monkeypatch.setattr(CalibrationWriter, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorded(out, 260)
        monkeypatch.undo()
        assert (out / MANIFEST).read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["c"]
        recorded(out, 300)
        assert RecordedInputs(out).ticks == 300

    def test_a_gap_begins_a_new_stream(self, tmp_path: Path) -> None:
        with CalibrationWriter(tmp_path / "c", CONFIG) as writer:
            writer.new_stream()
            for tick in range(300):
                if tick == 120:
                    writer.new_stream()
                writer.add(inputs(tick))
            writer.finish({})
        streams = [list(s) for s in RecordedInputs(tmp_path / "c").streams(CONFIG)]
        assert [len(s) for s in streams] == [120, 180]
        np.testing.assert_array_equal(streams[1][0].fbank, inputs(120).fbank)


def test_live_from_a_camera_and_a_microphone(checkpoint: Path, tmp_path: Path) -> None:
    """An HTTP camera and a PulseAudio sink stand in for the devices; everything from there on is what a device runs."""
    with camera_server() as camera, sound_server() as sound:
        player = sound.play(write_wav(tmp_path / "talk.wav", noise(16.0)))
        done = command(
            *("calibrate", checkpoint, "--record", 10, "--camera", camera.url, "--mic", "default", "--no-stt"),
            *("--out", tmp_path / "c"),
            cwd=tmp_path,
            PULSE_SERVER=sound.address,
        )
        player.kill()
        player.wait()
    assert done.returncode == 0, done.stderr
    found = RecordedInputs(tmp_path / "c")
    assert found.ticks == 250
    about = found.manifest["recorded"]
    assert about["ticks_with_picture"] > 200, done.stderr
    assert about["ticks_with_sound"] > 200, done.stderr


def test_a_device_records_without_torch_and_onnx(checkpoint: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "room.mp4", video_s=11.0, audio=noise(11.0))
    arguments = ["calibrate", str(checkpoint), "--record", "10", "--camera", str(clip), "--no-stt"]
    arguments += ["--out", str(tmp_path / "c")]
    code = (
        "import sys\nfor name in ('torch', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        f"sys.argv[1:] = {arguments!r}\nfrom clcr_edge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert RecordedInputs(tmp_path / "c").ticks == 250


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe not text", "not readable as text in UTF-8"),
        (b'{"text": "one", "start_s": 1, "end_s": 2}\n[1, 2]', "line 2: expected an object"),
        (b'{"text": "one", "start_s": NaN, "end_s": 2}', "line 1: .*give finite times"),
        (b'{"text": "one", "start_s": 1, "end_s": 1e999}', "line 1: .*give finite times"),
        (b'{"text": "one", "start_s": 2, "end_s": 1}', "line 1: .*before it starts"),
        (b'{"text": " ", "start_s": 1, "end_s": 2}', "line 1: .*no text"),
    ],
)
def test_words_beside_a_recording_are_held_to_before_the_export_begins(tmp_path: Path, content: bytes, said: str) -> None:
    make_clip(tmp_path / "a.mp4", video_s=11.0)
    (tmp_path / "a.words.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.words\.jsonl.*{said}"):
        calibration_set(tmp_path)


def test_there_is_no_calibration_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recording in it"):
        calibration_set(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        calibration_set(tmp_path / "nowhere")


def test_zero_stays_exact_in_every_range() -> None:
    for symmetric in (False, True):
        observer = RangeObserver()
        observer.see(np.random.default_rng(8).normal(0.7, 1.0, 5_000).astype(np.float32))
        for found in observer.candidates(symmetric).values():
            assert rounded(np.zeros(1), found, symmetric)[0] == 0.0
    assert Range(-1.0, 3.0).symmetric_scale == pytest.approx(3.0 / 127)
