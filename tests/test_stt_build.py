"""The builder, end to end on a handful of utterances, writes a directory that Vosk loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.runtime.speech_model import late_ends_s
from clcr_edge.stt import augment
from clcr_edge.stt.kaldi_files import LATE_ENDS_S
from clcr_edge.stt.synth import Voice, synthesiser
from clcr_edge.stt.vocabulary import DIGITS

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'clcr-edge[train]')")

from clcr_edge.stt.build import Recipe, build, main, stage1  # noqa: E402
from clcr_edge.stt.mel import dct_matrix, log_mel  # noqa: E402
from clcr_edge.stt.net import LEFT, RIGHT, TAPS, Tdnn, affines, log_posteriors  # noqa: E402
from clcr_edge.stt.takes import fsdd_takes  # noqa: E402

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
_TINY = Recipe(synthetic=150, epochs=1, width=24, flite=0, talk=0, accents=0, human=6, stage2_synthetic=30, stage2_epochs=1)


def _people(root: Path) -> None:
    """A data set laid out as fsdd is, with two speakers who are espeak-ng."""
    folder = root / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker, pitch in (("ann", 70), ("tom", 30)):
        for digit, word in enumerate(DIGITS):
            speech = synthesiser().speak((word,), Voice("gmw/en-US", "", 160, pitch))
            samples = augment.resample(speech.samples, speech.rate_hz)[::2]
            with wave.open(str(folder / f"{digit}_{speaker}_0.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((samples * 20_000).astype("<i2").tobytes())


@needs_espeak
def test_build_from_nothing_to_a_model_that_vosk_loads(tmp_path: Path) -> None:
    pytest.importorskip("vosk", reason="vosk is not installed (pip install 'clcr-edge[audio]')")
    _people(tmp_path)
    assert [take.words for take in fsdd_takes(tmp_path / "fsdd")][:2] == [("zero",), ("one",)]
    lines: list[str] = []
    build(tmp_path / "model", _TINY, tmp_path, hold_out="ann", work=tmp_path / "work", report=lines.append)
    assert any("aligned: tom" in line for line in lines)
    again: list[str] = []
    build(tmp_path / "again", _TINY, tmp_path, hold_out="ann", work=tmp_path / "work", report=again.append)
    assert not any("synthetic utterances" in line for line in again)  # stage 1 was kept
    first, second = (tmp_path / name / "am/final.mdl" for name in ("model", "again"))
    assert first.read_bytes() == second.read_bytes()
    assert late_ends_s(tmp_path / "model") == LATE_ENDS_S
    # vosk aborts the process on a broken model: never load one in the process of the tests
    code = (
        "import json, sys, vosk\nvosk.SetLogLevel(-1)\n"
        "r = vosk.KaldiRecognizer(vosk.Model(sys.argv[1]), 16000, json.dumps(['yes', '[unk]']))\n"
        "r.AcceptWaveform(bytes(32000)); print(r.FinalResult())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"text"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold-out", "ann"], "--hold-out ann needs --root"),
        (["--synthetic", "3"], "render more than 3 utterances"),
    ],
)
@needs_espeak
def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    small = ["--synthetic", "150", "--epochs", "1", "--width", "8"] if "--synthetic" not in arguments else []
    assert main(["--out", str(tmp_path / "m"), *small, *arguments]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--root", "nowhere"], "nowhere/fsdd/recordings holds no", 1),
        (["--root", "data", "--hold-out", "bob"], "no speaker 'bob' in data/fsdd: it has ann, tom", 2),
        (["--out", "file"], "file: File exists; name another place", 1),
        (["--work", "file/work"], "file/work: Not a directory; name another place", 1),
        (["--epochs", "0"], "epochs 0: give a number above 0", 2),
        (["--stage2-rate", "nan"], "stage2_rate nan: give a number above 0", 2),
        (["--drawn", "60"], "drawn 60.0: a share; give 0 to 1", 2),
    ],
)
@needs_espeak
def test_mistakes_are_told_before_anything_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clcr_edge.stt.build.stage1", lambda *_: pytest.fail("trained for half an hour, and then the mistake"))
    (tmp_path / "file").touch()
    _people(tmp_path / "data")
    assert main(["--out", "m", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_torch_the_builder_says_so_in_one_line() -> None:
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('clcr_edge.stt.build', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: torch is not installed; the builder needs: pip install 'clcr-edge[train]'\n"


@needs_espeak
def test_work_of_another_recipe_is_refused(tmp_path: Path) -> None:
    from clcr_edge.errors import UsageError

    (tmp_path / "stage1.json").write_text('{"key": "[1, 2, 3, 4]"}')
    with pytest.raises(UsageError, match="of another recipe or version"):
        stage1(_TINY, tmp_path, 1, lambda line: None)


def test_exported_layers_compute_what_the_network_computes() -> None:
    """Batch norms folded, DCT folded: the affine chain on MFCC equals the network on log-mel, edges included."""
    torch.manual_seed(0)
    net = Tdnn(11, width=8)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    net.eval()
    rng = np.random.default_rng(0)
    mel = log_mel(rng.normal(0, 0.05, 16_000).astype(np.float32))
    expected = log_posteriors(net, mel)
    matrix = dct_matrix()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=1e-12)
    padded = mel[np.clip(np.arange(-LEFT, len(mel) + RIGHT + 3), 0, len(mel) - 1)].astype(np.float64) @ matrix.T
    layers = affines(net, matrix.T)
    x = padded
    for layer, taps in zip(layers[:-1], TAPS, strict=True):
        low, n = -taps[0], len(x) - (taps[-1] - taps[0])
        x = np.concatenate([x[low + tap : low + tap + n] for tap in taps], axis=1) @ layer.weight.T + layer.bias
        x = np.maximum(x, 0)
    x = x @ layers[-1].weight.T + layers[-1].bias
    x = x - np.log(np.exp(x).sum(1, keepdims=True))
    np.testing.assert_allclose(x[: 3 * len(expected) : 3], expected, atol=1e-4)


@needs_espeak
def test_stage_2_needs_no_recordings(tmp_path: Path) -> None:
    lines: list[str] = []
    build(tmp_path / "two", replace(_TINY, human=0), report=lines.append)
    assert any(line.endswith("min synthetic, 0 min of recordings") for line in lines)
    build(tmp_path / "one", replace(_TINY, human=0, stage2_synthetic=0), report=lines.append)
    assert "no stage 2" in lines[-1]
    one, two = (tmp_path / name / "am/final.mdl" for name in ("one", "two"))
    assert one.read_bytes() != two.read_bytes()
