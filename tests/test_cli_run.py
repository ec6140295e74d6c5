"""`clcr-edge run` and `clcr-edge devices` as a person meets them: output, exit codes, one line per mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from clips import make_clip, noise
from live_rig import shared_file, sound_server

from clcr_edge import __version__
from clcr_edge.cli import main
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.pipeline import Summary

COMMAND = [sys.executable, "-m", "clcr_edge"]
NO_SOUND = {**os.environ, "PULSE_SERVER": "unix:/nonexistent"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", video_s=1.0, audio=noise(1.0))


def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, list[str], list[str]]:
    """The command in this process: exit code, lines of stdout, lines of stderr."""
    monkeypatch.setattr(sys, "argv", ["clcr-edge", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out.splitlines(), err.splitlines()


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def without_latency(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in p.items() if k != "latency_ms"} for p in predictions]


def check_stream(predictions: list[dict[str, Any]], ticks: int) -> None:
    """As many predictions as ticks, times rising, no drops, shares that are shares."""
    assert [p["tick"] for p in predictions] == list(range(ticks))
    assert all(b["t_s"] - a["t_s"] == pytest.approx(0.04, abs=1e-5) for a, b in pairwise(predictions))
    for p in predictions:
        assert sum(p["probs"].values()) == pytest.approx(1.0, abs=1e-4)
        assert p["probs"][p["label"]] == max(p["probs"].values())
        for weights in (p["level_weights"], p["modality_weights"]):
            assert sum(weights.values()) == pytest.approx(1.0, abs=1e-4)
        assert all(0 <= share <= 1 for level in p["participation"].values() for share in level.values())


@pytest.mark.parametrize("name", ["data/grid_clips/bbaf2n.mpg", "data/grid_clips/sbwe5n.mpg", "data/nasa_av/nasa_13013.mp4"])
def test_real_clips_as_json(
    name: str, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_file(name)
    code, out, err = call(capfd, monkeypatch, "run", tiny_bundle, "--camera", path, "--mic", path, "--json", "--fast")
    assert code == 0
    predictions = parsed(out)
    check_stream(predictions, 327 if "nasa" in name else 75)
    assert all(p["frame_seq"] is not None for p in predictions[:74])
    assert err[-1].startswith(f"clcr-edge: {len(predictions)} predictions")


def test_real_time_says_the_same_as_fast(
    clip: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fast, _ = call(capfd, monkeypatch, "run", tiny_bundle, "--camera", clip, "--json", "--fast")
    begun = time.monotonic()
    _, slow, _ = call(capfd, monkeypatch, "run", tiny_bundle, "--camera", clip, "--json")
    assert time.monotonic() - begun > 0.95
    assert without_latency(parsed(fast)) == without_latency(parsed(slow))


def test_duration_ends_it(
    clip: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(
        capfd, monkeypatch, "run", tiny_bundle, "--camera", clip, "--json", "--fast", "--no-stt", "--duration", 0.5
    )
    assert code == 0
    assert len(out) == 13  # 12.5 ticks


def test_a_pipe_gets_plain_lines(
    clip: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capfd, monkeypatch, "run", tiny_bundle, "--camera", clip, "--fast", "--no-stt")
    assert code == 0
    assert out[0].split()[:2] == ["0.04", "s"]
    assert len(err) == 1


def test_one_modality_alone(
    clip: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = call(capfd, monkeypatch, "run", tiny_bundle, "--camera", clip, "--no-mic", "--json", "--fast")
    seen = parsed(out)
    assert {p["age_s"]["audio"] for p in seen} == {None}
    _, out, _ = call(capfd, monkeypatch, "run", tiny_bundle, "--mic", clip, "--no-camera", "--json", "--fast")
    assert {p["frame_seq"] for p in parsed(out)} == {None}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--camera", "missing.mp4"], 1, "missing.mp4: no such file"),
        (["--camera", "0", "--no-mic"], 1, "camera 0: no such device; found "),
        (["--camera", "Nobody's Webcam", "--no-mic"], 1, 'camera "Nobody\'s Webcam": no such device'),
        (["--camera", "http://127.0.0.1:9/x", "--no-mic"], 1, "camera http://127.0.0.1:9/x: cannot be opened"),
        (["--camera", "nothing ! appsink", "--no-mic"], 1, "GStreamer"),
        (["--mic", "http://127.0.0.1:9/x", "--no-camera"], 1, "audio of http://127.0.0.1:9/x: gave no audio"),
        (["--camera", "http://127.0.0.1:9/x", "--mic", "http://127.0.0.1:9/x"], 1, "at this address, or give --no-camera"),
        (["--camera", "csi://0?size=1", "--no-mic"], 2, "no option 'size'"),
        (["--camera", "CLIP", "--camera-latency", "0.1"], 2, "a file has its own times"),
        (["--camera", "http://127.0.0.1:9/x", "--no-mic", "--camera-latency", "0.5"], 2, "give 0 to 0.5 s"),
        (["--camera", "CLIP", "--mic-channel", "1"], 2, "--mic-channel 1 is for microphones"),
        (["--camera", "CLIP", "--mic", "0"], 2, "no common clock"),
        (["--no-camera", "--no-mic"], 2, "leave nothing to run on"),
        (["--camera", "CLIP", "--no-camera"], 2, "contradict"),
        (["--camera", "CLIP", "--duration", "0"], 2, "--duration 0.0: give a positive number"),
        (["--camera", "CLIP", "--duration", "nan"], 2, "--duration nan"),
        (["--fast"], 2, "--fast is for files"),
        (["--camera", "CLIP", "--precision", "fp16"], 1, "no fp16 graph"),
        (["--camera", "CLIP", "--precision", "int3"], 2, "no precision called 'int3'; choose one of fp32"),
        (["--camera", "-1"], 2, "source -1: devices are counted from 0"),
        (["--camera", "CLIP", "--stt-model", "/no/such/model"], 1, "/no/such/model: no such speech model"),
        (["--camera", "CLIP", "--no-stt", "--stt-model", "x"], 2, "needs audio to listen to"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    args: list[str],
    code: int,
    said: str,
    clip: Path,
    tiny_bundle: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "0" in args and Path("/dev/video0").exists():
        pytest.skip("this machine has a camera 0")
    given = [str(clip) if a == "CLIP" else a for a in args]
    got, out, err = call(capfd, monkeypatch, "run", tiny_bundle, *given)
    assert (got, out, len(err)) == (code, [], 1)
    assert err[0].startswith("clcr-edge: ")
    assert said in err[0]


def test_a_sound_file_without_sound_is_a_mistake(
    tmp_path: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with wave.open(str(tmp_path / "none.wav"), "wb") as none:
        none.setparams((1, 2, 16_000, 0, "NONE", ""))
    code, out, err = call(capfd, monkeypatch, "run", tiny_bundle, "--mic", tmp_path / "none.wav", "--no-stt")
    assert (code, out) == (1, [])
    assert err[-1].endswith("none.wav: holds no sound; is it complete?")


def test_one_is_told_in_the_singular() -> None:
    one = Summary(ticks=1, frames_used=1, frames_unused=0, words=1, ticks_without_audio=1)
    assert one.line == "1 prediction, 1 frame used, 0 not used, 1 tick without audio, 1 word"
    assert "0 predictions, 2 frames used" in Summary(0, 2, 0, 0, 0).line


def test_the_version(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(capfd, monkeypatch, "--version") == (0, [f"clcr-edge {__version__}"], [])


@pytest.mark.parametrize(
    "args",
    [
        ["run", "/nope"],
        ["check", "/nope"],
        ["verify", "/nope"],
        ["build", "/nope"],
        ["export", "/nope"],
        ["eval", "/nope"],
        ["calibrate", "/nope", "--camera", "CLIP"],
    ],
)
def test_a_path_that_is_not_there_is_exit_1_in_every_command(
    args: list[str], clip: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call(capfd, monkeypatch, *[str(clip) if a == "CLIP" else a for a in args])
    assert (code, len(err)) == (1, 1)
    assert "/nope" in err[0]


@pytest.mark.parametrize("command", ["run", "eval", "verify", "build"])
def test_a_precision_that_nobody_knows_is_a_wrong_call(
    command: str, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call(capfd, monkeypatch, command, tiny_bundle, "--precision", "fp99")
    assert (code, len(err)) == (2, 1)
    assert "no precision called 'fp99'" in err[0]


def test_what_is_no_bundle_is_named(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call(capfd, monkeypatch, "run", tmp_path / "none", "--camera", clip)
    assert (code, len(err)) == (1, 1)
    assert "no such bundle" in err[0]


def test_without_a_bundle_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setattr("clcr_edge.runtime.assets.shipped", lambda _name: None)
    with pytest.raises(Exception, match="clcr-edge export --int8 --out"):
        default_bundle(tmp_path)
    (tmp_path / "mine").symlink_to(tiny_bundle)
    assert default_bundle(tmp_path) == tmp_path / "mine"


def test_a_wrong_option_is_exit_2() -> None:
    done = subprocess.run([*COMMAND, "run", "--bogus"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; import clcr_edge.cli; "
        "print(sorted({'torch', 'cv2', 'vosk', 'sounddevice', 'av', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_runtime_loads_no_torch_and_no_device_code(clip: Path, tiny_bundle: Path) -> None:
    code = (
        "import sys; from clcr_edge import bundle; from clcr_edge.runtime.onnx_engine import OnnxEngine\n"
        "from clcr_edge.runtime.session import Session; from clcr_edge.runtime.opening import open_pipeline\n"
        "from clcr_edge.runtime.sources import plan_sources\n"
        f"engine = OnnxEngine.from_bundle(bundle.read({str(tiny_bundle)!r}))\n"
        f"n = len(list(open_pipeline(Session(engine), plan_sources({str(clip)!r}, None), fast=True)))\n"
        "print(n >= 25, sorted({'torch', 'onnx', 'cv2', 'vosk', 'sounddevice'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_a_live_run_loads_no_file_decoder(tiny_bundle: Path) -> None:
    """FFmpeg's libraries are tens of megabytes of memory; a camera and a microphone at 16 kHz need none of them."""
    code = (
        "import sys, threading; import clcr_edge; from clcr_edge.runtime import camera, microphone, opening\n"
        "from clcr_edge.commands import run; from clcr_edge.runtime.pipeline import live\n"
        f"with live(clcr_edge.open_session({str(tiny_bundle)!r})) as pipeline: label = next(iter(pipeline)).label\n"
        "print(label is not None, 'av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cleanly_with_a_summary(signal_number: int, tmp_path: Path, tiny_bundle: Path) -> None:
    long = make_clip(tmp_path / "long.wav", video_s=0, audio=noise(60.0))
    process = subprocess.Popen(
        [*COMMAND, "run", str(tiny_bundle), "--mic", str(long), "--json", "--no-stt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(line.endswith("}") for line in out.splitlines())
    assert len(err.splitlines()) == 1
    assert " predictions, " in err


def test_a_reader_that_goes_away_ends_it_quietly(clip: Path, tiny_bundle: Path) -> None:
    command = " ".join([*COMMAND, "run", str(tiny_bundle), "--camera", str(clip), "--json", "--no-stt"])
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command} | head -2"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_live_view_on_a_terminal(clip: Path, tiny_bundle: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", str(tiny_bundle), "--camera", str(clip), "--no-stt"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[?1049h" in text  # a screen of its own,
    assert "\x1b[?1049l" in text  # and the old one back
    assert "from where" in text
    assert len(err.splitlines()) == 1


def test_devices_says_plainly_when_there_are_none() -> None:
    done = subprocess.run([*COMMAND, "devices"], capture_output=True, text=True, check=True, env=NO_SOUND, timeout=30)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "cameras"
    assert "microphones" in done.stdout
    if not Path("/dev/snd").exists():
        assert "none found (PortAudio lists no input)" in done.stdout or "not installed" in done.stdout


@pytest.mark.live
def test_devices_lists_a_microphone_with_its_rates() -> None:
    with sound_server() as server:
        done = subprocess.run([*COMMAND, "devices", "--json"], capture_output=True, text=True, check=True, env=server.env)
    assert done.stderr == ""
    table = json.loads(done.stdout)
    assert table["microphone_problem"] is None
    default = [m for m in table["microphones"] if m["is_default"]]
    assert len(default) == 1
    assert 16_000 in default[0]["rates_hz"]


def test_a_missing_portaudio_is_one_line(tiny_bundle: Path) -> None:
    # What sounddevice does where libportaudio2 is not installed.
    code = (
        "import ctypes.util, sys; ctypes.util.find_library = lambda _name: None\n"
        f"sys.argv = ['clcr-edge', 'run', {str(tiny_bundle)!r}, '--no-camera', '--no-stt']\n"
        "from clcr_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "clcr-edge: microphone: the PortAudio library is not installed; apt install libportaudio2"
    ]


@pytest.mark.parametrize(
    ("missing", "args", "said"),
    [
        ("cv2", ["--camera", "0", "--no-mic"], "camera: OpenCV is not installed; pip install 'clcr-edge[camera]'"),
        ("sounddevice", ["--no-camera", "--no-stt"], "microphone: the sounddevice package is not installed; pip install"),
        ("vosk", ["--mic", "CLIP", "--stt-model", "MODEL"], "speech: the vosk package is not installed; pip install"),
    ],
)
def test_a_missing_extra_is_one_line(missing: str, args: list[str], said: str, clip: Path, tiny_bundle: Path) -> None:
    given = [{"CLIP": str(clip), "MODEL": str(tiny_bundle)}.get(a, a) for a in args]
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['clcr-edge', 'run', {str(tiny_bundle)!r}, *{given!r}]\n"
        "from clcr_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        ("ImportError('numpy.core.multiarray failed to import')", "compiled for NumPy 1: pip install 'numpy>=1.26,<2'"),
        ("ImportError('libGL.so.1: cannot open shared object file: No such file or directory')", "; apt install libgl1"),
        ("ModuleNotFoundError('No module named typing_extensions', name='typing_extensions')", "; clcr-edge doctor"),
    ],
)
def test_an_opencv_that_does_not_load_is_not_called_missing(raises: str, said: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """Such as JetPack's beside NumPy 2, which prints a page about it: who installs the wheel then has one without GStreamer."""
    (tmp_path / "cv2.py").write_text(f"import sys\nprint('A module that was compiled', file=sys.stderr)\nraise {raises}\n")
    command = [*COMMAND, "run", str(tiny_bundle), "--camera", "0", "--no-mic"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("clcr-edge: camera: OpenCV does not load (")
    assert said in line


def test_without_vosk_it_goes_on_and_says_so(clip: Path, tiny_bundle: Path) -> None:
    code = (
        "import sys; sys.modules['vosk'] = None\n"
        f"sys.argv = ['clcr-edge', 'run', {str(tiny_bundle)!r}, '--mic', {str(clip)!r}, '--fast', '--json']\n"
        "from clcr_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert len(done.stdout.splitlines()) >= 25
    assert done.stderr.splitlines()[0].startswith("clcr-edge: going on without language: ")


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "clcr-edge: output: No space left on device; make room, or name another place\n"
