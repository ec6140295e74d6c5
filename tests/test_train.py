"""Training: a few real steps on real shapes, killed and resumed, and checkpoints that cannot lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from safetensors import safe_open  # noqa: E402

from clcr_edge.data.bank import NONE  # noqa: E402
from clcr_edge.data.seen import FILE, Seen  # noqa: E402
from clcr_edge.data.synthetic import synthetic_bank  # noqa: E402
from clcr_edge.errors import ClcrEdgeError, DataError, UsageError  # noqa: E402
from clcr_edge.model.student import Student  # noqa: E402
from clcr_edge.runtime.assets import default_speech_model  # noqa: E402
from clcr_edge.train.checkpoint import load_student, load_tensors, save_student, save_tensors  # noqa: E402
from clcr_edge.train.digits import DigitsMaterial, Recipe, student_config, train_digits  # noqa: E402
from clcr_edge.train.heard_words import learn_heard_words  # noqa: E402
from clcr_edge.train.loop import Schedule, fit, hash_seed  # noqa: E402
from clcr_edge.train.voices import other_voices  # noqa: E402

SMALL = Recipe(
    frame_steps=3,
    frames=16,
    easy=2,
    speech_steps=2,
    speech=150,
    pieces=3,
    word_steps=2,
    words=3,
    steps=4,
    streams=2,
    seconds=4.0,
    predict=10,
    heard_steps=2,
    quiet_minutes=1,
)


@pytest.mark.slow
def test_a_short_training_writes_a_checkpoint_that_knows_what_it_saw(shared_data: Path, tmp_path: Path) -> None:
    summary = train_digits(shared_data, tmp_path, seed=3, leave_out="0", recipe=SMALL)
    assert summary["last"]["phase"] == "heard"
    assert 0.0 <= summary["last"]["val_tick_accuracy"] <= 1.0
    student, provenance = load_student(tmp_path)
    assert provenance["left_out"] == "george"
    assert "george" not in provenance["speakers"]
    assert "george" not in Seen.load(tmp_path / FILE).speakers
    assert all(torch.isfinite(p).all() for p in student.parameters())
    phases = [json.loads(line)["phase"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert phases == ["frames", "speech", "words", "streams", "heard"]
    assert provenance["words"] == "simulated; at the end those of vosk-tiny"
    assert not list(tmp_path.glob("*resume*"))


def test_the_phase_of_heard_words_leaves_the_front_ends_alone(tmp_path: Path) -> None:
    pytest.importorskip("vosk", reason="pip install 'clcr-edge[audio]'")
    model = default_speech_model()
    assert model is not None
    bank = synthetic_bank("check")
    torch.manual_seed(0)
    student = Student(student_config())
    student.operating_bias.together[NONE] = 1.0
    before = {k: v.clone() for k, v in student.state_dict().items()}
    learn_heard_words(student, DigitsMaterial(bank, bank, bank, None), SMALL, tmp_path, 0, model)
    changed = {k.split(".")[0] for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert {"intra_ced", "inter_cad", "word_encoder", "audio_tcn", "vision_tcn"} <= changed
    assert not {"frame_encoder", "sound_encoder"} & changed
    assert not student.operating_bias.together.any(), "the bias would be learned around, and then set once more"
    assert all(p.requires_grad for p in student.parameters())


def test_what_either_training_saw_is_seen() -> None:
    one = Seen(np.array([1, 3], np.uint64), np.array([5], np.uint64), ("b",))
    both = one.joined(Seen(np.array([2, 3], np.uint64), np.array([], np.uint64), ("a", "b")))
    assert (both.images.tolist(), both.recordings.tolist(), both.speakers) == ([1, 2, 3], [5], ("a", "b"))


def test_the_heard_phase_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clcr_edge.train.heard_words", str(tmp_path / "none"), "--root", str(tmp_path)]
    done = subprocess.run([*command, "--out", str(tmp_path / "o")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("clcr-edge: ")
    assert "Traceback" not in done.stderr


def test_an_unknown_speaker_is_refused_by_name(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--leave-out nobody: choose one of george"):
        train_digits(shared_data, tmp_path, 0, "nobody", SMALL)


class Line(torch.nn.Module):
    """y = a x + b with dropout: small, and random enough to tell runs apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1))

    def loss(self, batch, step: int):  # type: ignore[no-untyped-def]
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(batch))
        if step == getattr(self, "dies_at", -1):
            raise KeyboardInterrupt
        value = (self.inner(x) - x.sum(1, keepdim=True)).square().mean()
        return {"total": value * (float("nan") if step == getattr(self, "nan_at", -1) else 1.0)}


def run(out: Path, **marks: int) -> dict[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    model = Line()
    for name, value in marks.items():
        setattr(model, name, value)
    schedule = Schedule(steps=30, lr=0.01, save_every=10)
    return fit("line", model, schedule, lambda first, count: iter(range(first, first + count)), model.loss, out, seed=5)


def test_a_killed_and_resumed_run_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", dies_at=17)
    resumed = run(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(ClcrEdgeError, match=r"became nan at step 12.*lower the learning rate"):
        run(tmp_path / "nan", nan_at=12)
    assert all(torch.isfinite(v).all() for v in run(tmp_path / "nan").values())


def test_seeds_mix_alike_everywhere() -> None:
    assert hash_seed(1, 2) == hash_seed(1, 2) != hash_seed(2, 1)


class TestCheckpoint:
    @pytest.fixture
    def folder(self, student, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
        save_student(tmp_path, student.state_dict(), student.config, {"seed": 1})
        return tmp_path

    def test_the_same_content_is_the_same_bytes_and_as_readable_as_any_file(self, tmp_path: Path) -> None:
        tensors = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int64)}
        metadata = {f"key {k}": f'"{k}" é\n' for k in range(8)}
        for name in ("one", "two"):
            save_tensors(tmp_path / name, tensors, dict(metadata))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        with safe_open(tmp_path / "one", framework="pt") as file:
            assert file.metadata() == metadata
        assert all(torch.equal(v, tensors[k]) for k, v in load_tensors(tmp_path / "one").items())
        (tmp_path / "plain").write_text("")
        assert (tmp_path / "one").stat().st_mode == (tmp_path / "plain").stat().st_mode
        assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "plain", "two"]

    def test_it_holds_exactly_the_weights(self, student, folder: Path) -> None:  # type: ignore[no-untyped-def]
        loaded, provenance = load_student(folder)
        assert provenance == {"seed": 1}
        for name, value in student.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)
        assert (folder / "student.safetensors").stat().st_size < 4e6

    def test_truncated_foreign_or_missing_files_are_named(self, folder: Path, tmp_path: Path) -> None:
        weights = folder / "student.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(good[:1_000])
        with pytest.raises(DataError, match=r"student\.safetensors: not a readable"):
            load_student(folder)
        weights.unlink()
        with pytest.raises(DataError, match="no such checkpoint file"):
            load_student(folder)
        shutil.rmtree(folder)
        with pytest.raises(DataError, match="no checkpoint there"):
            load_student(folder)

    def test_weights_of_another_shape_or_nan_are_refused(self, student, folder: Path) -> None:  # type: ignore[no-untyped-def]
        weights = dict(student.state_dict())
        weights["inter_cad.anchors"] = weights["inter_cad.anchors"] * float("nan")
        save_student(folder, weights, student.config, {})
        with pytest.raises(DataError, match="NaN"):
            load_student(folder)
        weights["inter_cad.anchors"] = torch.zeros(2, 2)
        save_student(folder, weights, student.config, {})
        with pytest.raises(DataError, match=r"inter_cad\.anchors"):
            load_student(folder)


class TestSeen:
    def test_what_training_saw_is_left_out(self) -> None:
        bank = synthetic_bank("check")
        rng = np.random.default_rng(0)
        images, recordings = (rng.permutation(n)[: n // 2] for n in (len(bank.images), len(bank.recordings)))
        left, line = Seen.of(bank.select(images, recordings, "half")).unseen(bank)
        assert len(left.images) == len(bank.images) - len(images)
        assert len(left.recordings) == len(bank.recordings) - len(recordings)
        assert "KNOWN voices" in line

    def test_new_speakers_are_preferred_and_said(self) -> None:
        bank = synthetic_bank("check")
        speaker = bank.speakers[0]
        known = bank.select(np.arange(10, len(bank.images)), np.flatnonzero([s != speaker for s in bank.speakers]), "known")
        every = bank.select(np.arange(len(bank.images)), np.arange(len(bank.recordings)), "all")
        seen = Seen.of(known)
        left, line = Seen(np.empty(0, np.uint64), seen.recordings, seen.speakers).unseen(every)
        assert set(left.speakers) == {speaker}
        assert "never heard" in line

    def test_nothing_left_says_what_to_do(self) -> None:
        bank = synthetic_bank("check")
        with pytest.raises(DataError, match="give --root a folder with others"):
            Seen.of(bank).unseen(bank)


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clcr_edge.cli"]
    for arguments, code, said in (
        (["train", "birds", "--root", ".", "--out", str(tmp_path / "o")], 2, "nothing called 'birds'"),
        (["train", "digits", "--root", str(tmp_path), "--out", str(tmp_path / "o")], 1, "fsdd"),
        (["eval", str(tmp_path / "none")], 1, "no such folder"),
        (["eval", str(tmp_path), "--without", "vision", "--without", "audio", "--without", "language"], 2, "all three"),
        (["eval", str(tmp_path), "--stt-model", str(tmp_path)], 2, "--words recognised"),
        (["eval", str(tmp_path), "--words", "recognised", "--stt-model", str(tmp_path)], 1, "not a Vosk model"),
        (["export", "--data", "digits"], 2, "--root"),
        (["export", "--calibration", str(tmp_path)], 1, "no recording in it"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, (arguments, done.stderr)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_another_voice_moves_a_tone_along_the_axis_and_keeps_silence_silent() -> None:
    silence = torch.full((6, 10, 4, 40), -1.0)
    assert torch.allclose(other_voices(silence, 1), silence)
    tone = silence.clone()
    tone[..., 16] = 2.0
    bent = other_voices(tone, 1)
    assert bent.shape == tone.shape
    assert torch.equal(bent, other_voices(tone, 1))
    heard = bent[bent.amax(dim=(1, 2, 3)) > 0.5]  # a frequency mask may have swallowed it
    peaks = heard.mean(dim=(1, 2)).argmax(dim=-1)
    assert len(peaks) >= 3
    assert len(set(peaks.tolist())) > 1, "one voice for all"
    assert (peaks.sub(16).abs() <= 3).all()
