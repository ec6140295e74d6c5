"""What SRC names, which pairs make sense, and that contradictions are told apart from missing things."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import make_clip, noise

from clcr_edge.errors import UsageError
from clcr_edge.runtime.sources import Source, parse_source, plan_sources


def test_src_is_an_index_a_device_a_url_or_a_file(tmp_path: Path) -> None:
    here = tmp_path / "clip"
    here.touch()
    assert parse_source("2") == Source("device", 2)
    assert parse_source("/dev/video1") == Source("device", "/dev/video1")
    assert parse_source("HD Webcam") == Source("device", "HD Webcam")
    assert parse_source("rtsp://10.0.0.2/live") == Source("url", "rtsp://10.0.0.2/live")
    assert parse_source(str(here)) == Source("file", str(here))
    # What looks like a file is one, so that the error is about the file.
    assert parse_source("holiday.MP4") == Source("file", "holiday.MP4")
    assert parse_source("./holiday").kind == "file"


def test_nothing_given_is_camera_0_and_the_default_microphone() -> None:
    plan = plan_sources(None, None)
    assert (plan.camera, plan.mic) == (Source("device", 0), Source("device", None))
    assert plan.is_live


def test_one_file_serves_both_as_far_as_it_has_both(tmp_path: Path) -> None:
    both = str(make_clip(tmp_path / "both.mp4", video_s=0.2, audio=noise(0.2)))
    silent = str(make_clip(tmp_path / "silent.mp4", video_s=0.2))
    song = str(make_clip(tmp_path / "song.wav", video_s=0, audio=noise(0.2)))
    assert plan_sources(both, None).mic == Source("file", both)
    assert plan_sources(None, both).camera == Source("file", both)
    assert plan_sources(silent, None).mic is None
    assert plan_sources(None, song).camera is None
    assert plan_sources(both, None, no_mic=True).mic is None
    assert not plan_sources(silent, song).is_live


def test_one_live_source_brings_the_other() -> None:
    assert plan_sources("http://127.0.0.1/a", None).mic == Source("device", None)
    assert plan_sources(None, "1").camera == Source("device", 0)
    assert plan_sources(None, "1", no_camera=True).camera is None


@pytest.mark.parametrize(
    ("camera", "mic", "no_camera", "no_mic", "said"),
    [
        ("0", None, True, False, "--camera 0 and --no-camera"),
        (None, "0", False, True, "--mic 0 and --no-mic"),
        (None, None, True, True, "leave nothing"),
        ("clip.mp4", "0", False, False, "no common clock"),
        ("0", "talk.wav", False, False, "no common clock"),
        ("", None, False, False, "empty source"),
    ],
)
def test_contradictions(camera: str | None, mic: str | None, no_camera: bool, no_mic: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_sources(camera, mic, no_camera=no_camera, no_mic=no_mic)
