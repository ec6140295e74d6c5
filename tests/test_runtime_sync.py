"""The offset between picture and sound: flashes and claps at known times, what does not go together, and what is stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip

from clcr_edge.cli import main
from clcr_edge.errors import SourceError, UsageError
from clcr_edge.packets import AudioChunk, ByteArray, FloatArray, VideoFrame
from clcr_edge.runtime.av_events import Ear, Eye, Times
from clcr_edge.runtime.av_offset import AvOffset, measure, offset_of
from clcr_edge.runtime.sources import plan_sources
from clcr_edge.runtime.sync_store import Synced, read_synced, source_names, store_path, write_synced

RATE_HZ = 16_000


def uneven(count: int, seed: int = 0) -> FloatArray:
    """Times of events one to two seconds apart, that fall anywhere into a frame."""
    times: FloatArray = (0.7 + np.cumsum(np.random.default_rng(seed).uniform(1.0, 2.0, count))).astype(np.float32)
    return times


def beeps(times: FloatArray, seconds: float, level: float = 0.3, hiss: float = 0.002) -> FloatArray:
    """A tone of 80 ms at each time, in a room that hisses."""
    rng = np.random.default_rng(1)
    sound = hiss * rng.standard_normal(int(seconds * RATE_HZ))
    for t_s in times:
        at = round(float(t_s) * RATE_HZ)
        length = min(1_280, len(sound) - at)
        sound[at : at + length] += level * np.sin(2 * np.pi * 1_000 * np.arange(length) / RATE_HZ)
    out: FloatArray = sound.astype(np.float32)
    return out


def lamp(t_s: float, times: FloatArray | Times) -> ByteArray:
    """What a camera sees at t_s of a lamp, a sixth of the picture, that is on for 0.1 s from each of the times."""
    since = t_s - times
    picture = np.full((120, 160, 3), 70, np.uint8)
    picture += np.random.default_rng(int(t_s * 1e3)).integers(0, 6, picture.shape, np.uint8)  # noise of the sensor
    if ((since >= 0) & (since < 0.1)).any():
        picture[30:80, 50:115] = 230
    return picture


def flashing(times: FloatArray, fps: float) -> Callable[[int], ByteArray]:
    """A camera that sees the lamp: its frame k, of time k / fps."""
    return lambda count: lamp(count / fps, times)


def clapping(times: FloatArray, fps: float) -> Callable[[int], ByteArray]:
    """Two hands that meet at each time, ever faster until then, rest together, and part slowly."""

    def image(count: int) -> ByteArray:
        picture = np.full((120, 160, 3), 70, np.uint8)
        picture += np.random.default_rng(count).integers(0, 4, picture.shape, np.uint8)
        to_go = times - count / fps
        ahead = to_go[to_go > 0]
        gap = 60.0 * min(float(ahead[0]) / 0.25, 1.0) ** 0.7 if ahead.size else 0.0
        since = -to_go[to_go <= 0]
        if since.size:
            gap = min(gap, 60.0 * max(0.0, (float(since[-1]) - 0.15) / 0.6))
        half = round(gap / 2)
        picture[30:100, max(0, 60 - half) : 78 - half] = 200
        picture[30:100, 82 + half : 100 + half] = 200
        return picture

    return image


def seen_and_heard(image: Callable[[int], ByteArray], sound: FloatArray, fps: float, late_s: float) -> AvOffset | None:
    """Through eye and ear; frames are stamped late_s after they were taken."""
    eye, ear = Eye(), Ear()
    for count in range(int(len(sound) / RATE_HZ * fps)):
        eye.push(VideoFrame(image(count), 50.0 + count / fps + late_s, count))
    for at in range(0, len(sound), 333):
        ear.push(AudioChunk(sound[at : at + 333], RATE_HZ, 50.0 + at / RATE_HZ))
    return measure(eye, ear)


@pytest.mark.parametrize("late_s", [0.0, 0.120, -0.070, 0.400])
@pytest.mark.parametrize(("make", "kind"), [(flashing, "flash"), (clapping, "clap")])
def test_a_known_offset_is_found(
    make: Callable[[FloatArray, float], Callable[[int], ByteArray]], kind: str, late_s: float
) -> None:
    times = uneven(10)
    found = seen_and_heard(make(times, 30.0), beeps(times, float(times[-1]) + 1), 30.0, late_s)
    assert found is not None
    assert found.kind == kind
    assert found.events >= (10 if kind == "flash" else 7)
    assert found.offset_s == pytest.approx(late_s, abs=0.005 if kind == "flash" else 0.5 / 30)
    assert found.doubt_s < (0.004 if kind == "flash" else 0.013)
    assert found.spread_s < 0.020
    assert found.frame_s == pytest.approx(1 / 30, abs=1e-6)


def test_extra_sounds_and_lights_do_not_matter() -> None:
    times, stray = uneven(10), uneven(10, seed=5) + 0.31
    seconds = float(times[-1]) + 1
    found = seen_and_heard(
        flashing(np.append(times, stray[:4]), 30.0), beeps(np.append(times, stray[5:]), seconds), 30.0, 0.1
    )
    assert found is not None
    assert found.offset_s == pytest.approx(0.1, abs=0.012)
    assert found.events >= 8


@pytest.mark.parametrize("case", ["dark", "silent", "unrelated"])
def test_what_does_not_go_together_gives_no_offset(case: str) -> None:
    times = uneven(10)
    lights = times[:0] if case == "dark" else times
    sounds = {"silent": times[:0], "unrelated": uneven(6, seed=9)}.get(case, times)
    assert seen_and_heard(flashing(lights, 30.0), beeps(sounds, 18.0), 30.0, 0.0) is None


def test_events_in_step_are_taken_for_the_smallest_offset() -> None:
    beat: Times = np.arange(10, dtype=np.float64) * 0.5
    found = offset_of(beat + 0.1 + 0.02, beat, "flash", 0.04)
    assert found is not None
    assert found.offset_s == pytest.approx(0.1)


# -- the command -------------------------------------------------------------------------------------------------------


def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["clcr-edge", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """25 frames a second, the sound 90 ms after the light: the picture is 90 ms early."""
    times = uneven(9)
    seconds = float(times[-1]) + 1
    return make_clip(
        tmp_path / "clip.mp4", video_s=seconds, audio=beeps(times + np.float32(0.09), seconds), image=flashing(times, 25.0)
    )


def test_a_file_is_measured_and_nothing_is_stored(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    code, out, err = call(capfd, monkeypatch, "sync", "--camera", clip, "--mic", clip, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["offset_ms"] == pytest.approx(-90, abs=10)
    assert (found["events"], found["kind"], found["stored"]) == (9, "flash", None)
    code, out, _ = call(capfd, monkeypatch, "sync", "--camera", clip)
    assert code == 0
    assert "ms earlier than the sound" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--camera", "CLIP", "--events", "2"], 2, "at least 3"),
        (["--camera", "CLIP", "--seconds", "nan"], 2, "--seconds nan"),
        (["--camera", "CLIP", "--mic-channel", "1"], 2, "--mic-channel 1 is for microphones"),
        (["--camera", "QUIET"], 2, "give --camera and --mic"),
        (["--camera", "STILL"], 1, "not enough was both seen and heard"),
    ],
)
def test_mistakes_are_one_line(
    args: list[str], code: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {"audio": beeps(uneven(1), 1.0)}
    clips: dict[str, dict[str, Any]] = {"CLIP": sound, "QUIET": {}, "STILL": sound}
    args = [str(make_clip(tmp_path / f"{a}.mp4", **clips[a])) if a in clips else a for a in args]
    got, _, err = call(capfd, monkeypatch, "sync", *args)
    assert got == code
    (line,) = err.splitlines()
    assert said in line


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_the_store_keeps_pairs_apart_and_survives_a_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    one, two = Synced(0.042, 0.009, 8, "clap", "2026-11-23"), Synced(-0.01, 0.009, 8, "flash", "2026-11-23")
    assert read_synced('HD "Web" cam', "default") is None
    write_synced('HD "Web" cam', "default", one)
    path = write_synced('HD "Web" cam', "array", two)
    assert path == store_path() == tmp_path / "clcr-edge" / "sync.toml"
    assert (read_synced('HD "Web" cam', "default"), read_synced('HD "Web" cam', "array")) == (one, two)
    assert read_synced("another", "default") is None
    assert [p.name for p in path.parent.iterdir()] == ["sync.toml"]
    path.write_text("schema = 1\npairs = 3\n")
    assert read_synced('HD "Web" cam', "default") is None


def test_no_password_gets_into_the_store() -> None:
    plan = plan_sources("rtsp://me:secret@10.0.0.2:554/live?token=x", "http://me:secret@10.0.0.3/a.wav")
    assert source_names(plan) == ("rtsp://10.0.0.2:554/live", "http://10.0.0.3/a.wav")


@pytest.mark.parametrize(
    ("part", "camera", "mic", "added"),
    [
        ("camera", "0", "0", ", or give --no-camera"),
        ("microphone", "0", "0", ", or give --no-mic"),
        ("camera", "0", None, ""),  # nothing would be left
        ("microphone", None, "0", ""),
        (None, "0", "0", ""),
    ],
)
def test_the_way_out_is_named_only_where_it_leads_somewhere(
    part: str | None, camera: str | None, mic: str | None, added: str
) -> None:
    from clcr_edge.commands.live_options import doing_without

    plan = plan_sources(camera, mic, no_camera=camera is None, no_mic=mic is None)
    with pytest.raises(SourceError) as e, doing_without(plan):
        raise SourceError("it is broken; mend it", part=part)
    assert str(e.value) == "it is broken; mend it" + added


def test_a_measured_offset_moves_the_later_of_the_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clcr_edge.commands.live_options import live_tuning

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    plan = plan_sources("http://127.0.0.1:1/cam", "http://127.0.0.1:1/mic")
    names = ("http://127.0.0.1:1/cam", "http://127.0.0.1:1/mic")
    assert live_tuning(plan, None, None, 0.5).camera_latency_s == 0.0
    assert capsys.readouterr().err == ""
    write_synced(*names, Synced(0.042, 0.009, 8, "clap", "2026-11-23"))
    tuning = live_tuning(plan, None, None, 0.5)
    assert (tuning.camera_latency_s, tuning.mic_offset_s) == (0.042, 0.0)
    assert "pictures are moved 42 ms back, as clcr-edge sync measured on 2026-11-23" in capsys.readouterr().err
    write_synced(*names, Synced(-0.030, 0.009, 8, "clap", "2026-11-23"))
    tuning = live_tuning(plan, None, None, 0.5)
    assert (tuning.camera_latency_s, tuning.mic_offset_s) == (0.0, -0.030)
    assert "sound are moved 30 ms" in capsys.readouterr().err
    assert live_tuning(plan, 0.1, None, 0.5).camera_latency_s == 0.1
    assert capsys.readouterr().err == ""
    for wrong in (0.5, -0.1, float("nan")):
        with pytest.raises(UsageError, match="--camera-latency"):
            live_tuning(plan, wrong, None, 0.5)
    with pytest.raises(UsageError, match="a file has its own times"):
        live_tuning(plan_sources("a.mp4", None), 0.1, None, 0.5)
