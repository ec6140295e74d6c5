"""Every example runs, on a file and, where it is made for that, on live parts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import browser
from clips import make_clip, noise
from live_rig import camera_server, need_module, sound_server

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", video_s=1.0, audio=noise(1.0))


def run_example(name: str, *args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=env,
    )


def test_from_file(clip: Path, tiny_bundle: Path) -> None:
    done = run_example("from_file.py", clip, "--bundle", tiny_bundle, "--no-stt")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["0.04", "s"]
    assert re.match(r"2[567] predictions, 25 frames used, 0 not used", lines[-1])


def test_from_file_names_a_missing_file(tmp_path: Path, tiny_bundle: Path) -> None:
    done = run_example("from_file.py", tmp_path / "none", "--bundle", tiny_bundle, "--no-stt")
    assert done.returncode == 1
    assert done.stderr == f"from_file: {tmp_path / 'none'}: no such file; check the path\n"


def test_robot_loop_keeps_its_rate_whatever_the_network_does(clip: Path, tiny_bundle: Path) -> None:
    need_module("vosk")
    done = run_example("robot_loop.py", "--camera", clip, "--bundle", tiny_bundle, "--seconds", 0.8)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r"(\d+) rounds, worst ([\d.]+) ms late", done.stdout)
    assert found is not None
    assert int(found[1]) == pytest.approx(40, abs=3)  # 0.8 s at 50 Hz, late rounds caught up


@pytest.mark.live
def test_webcam_on_live_parts(tiny_bundle: Path) -> None:
    need_module("vosk")
    with camera_server() as camera, sound_server() as sound:
        done = run_example("webcam.py", "--camera", camera.url, "--bundle", tiny_bundle, "--seconds", 1, env=sound.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^25 predictions, 2\d frames used", done.stdout, re.MULTILINE)


@contextmanager
def kiosk(*args: object) -> Iterator[str]:
    """The kiosk's address while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "kiosk.py"), "--port", "0", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(2)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


@pytest.mark.live
def test_kiosk_in_a_browser(tmp_path: Path, tiny_bundle: Path) -> None:
    need_module("vosk")
    clip = make_clip(tmp_path / "clip.mp4", video_s=3.0, audio=noise(3.0))
    with browser() as page, kiosk("--camera", clip, "--bundle", tiny_bundle) as url:
        page.open(url)
        page.wait("+document.body.dataset.ticks >= 10")
        page.wait("document.getElementById('picture').naturalWidth == 160")
        assert page.value("document.querySelectorAll('#classes .row').length") == 11
        assert page.value("document.querySelectorAll('#classes .best').length") == 1
        assert page.value("document.getElementById('label').textContent") in [*"0123456789", "none"]
        assert float(page.value("document.getElementById('level').style.width").rstrip("%")) > 20
        assert page.value("document.querySelectorAll('#modalities .row').length") == 3
        # What it shows fits the window, and nothing came from anywhere else.
        assert page.value("document.documentElement.scrollHeight <= window.innerHeight")
        names = page.value("performance.getEntriesByType('resource').map(e => e.name).join(' ')").split()
        assert names
        assert all(name.startswith(url) for name in names)
        page.wait("document.body.dataset.ended == 'yes'")
        assert page.value("document.getElementById('state').textContent") == "the media has ended"
        page.screenshot(tmp_path / "kiosk.png")
        assert (tmp_path / "kiosk.png").stat().st_size > 10_000


def test_kiosk_answers_this_machine_only(tiny_bundle: Path, clip: Path) -> None:
    need_module("vosk")
    with kiosk("--camera", clip, "--bundle", tiny_bundle) as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        for path, host, code in (("", "evil.example", 403), ("../pyproject.toml", "127.0.0.1", 404)):
            request = urllib.request.Request(url + path, headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == code
            refused.value.close()


def test_kiosk_names_a_port_that_is_taken(tiny_bundle: Path, clip: Path) -> None:
    need_module("vosk")
    with kiosk("--camera", clip, "--bundle", tiny_bundle) as url:
        port = url.rstrip("/").rsplit(":", 1)[1]
        done = run_example("kiosk.py", "--camera", clip, "--bundle", tiny_bundle, "--port", port)
    assert done.returncode == 1
    assert f"kiosk: --port {port}: cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
