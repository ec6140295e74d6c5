"""`clcr-edge doctor` comes out whole on any machine, and names what is missing with the command that adds it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clcr_edge.commands.doctor import page
from clcr_edge.runtime import doctor, machine
from clcr_edge.runtime.doctor import TARGETS, Part, examine, try_part

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """Parts as a test wants them, in place of processes; by default each is there."""
    table = {name: Part(name, {"version": "1.0", "gstreamer": True}, None) for name in doctor._TRIALS}
    monkeypatch.setattr(doctor, "try_part", lambda name: table[name])
    monkeypatch.setattr(doctor, "_cameras", lambda: ["0 test (/dev/video0)"])
    monkeypatch.setattr(doctor, "_microphones", lambda: ["0 test"])
    return table


def test_the_command_works_on_this_machine() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clcr_edge", "doctor", "--json"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert set(found["targets"]) == set(TARGETS)
    assert found["parts"]["onnxruntime"]["version"]
    assert found["targets"]["run on files"]["ready"] is True
    text = page(found)
    assert "onnxruntime" in text
    for target in TARGETS:
        assert f"  {target}" in text


def test_every_target_says_how_to_get_each_of_its_parts(parts: dict[str, Part]) -> None:
    assert all(t["ready"] for t in examine()["targets"].values())
    for name in parts:
        parts[name] = Part(name, {}, "not installed")
    found = examine()
    text = page(found)
    for target, needs in TARGETS.items():
        missing = found["targets"][target]["missing"]
        assert [m["part"] for m in missing] == list(needs)
        assert all(m["remedy"] in text for m in missing)


def test_a_jetson_gets_its_own_remedies_and_warnings(parts: dict[str, Part], monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"python": "3.10.12", "l4t": "36.3.0", "jetpack": "6.0", "power_mode": "15W"}
    monkeypatch.setattr(doctor, "machine_table", lambda: about)
    parts["tensorrt"] = Part("tensorrt", {}, "not installed")
    parts["opencv"] = Part("opencv", {"version": "4.14.0", "gstreamer": False}, None)
    found = examine()
    assert "--system-site-packages" in found["targets"]["TensorRT"]["missing"][0]["remedy"]
    notes = "\n".join(found["notes"])
    assert "JetPack 6.0 has no TensorRT 10" in notes
    assert "no GStreamer" in notes
    assert "power mode 15W: full speed is sudo nvpmodel -m N" in notes


def test_an_opencv_that_wants_an_older_numpy_says_so(parts: dict[str, Part]) -> None:
    parts["opencv"] = Part("opencv", {}, "ImportError: numpy.core.multiarray failed to import")
    assert examine()["targets"]["camera"]["missing"][0]["remedy"] == "pip install 'numpy>=1.26,<2'"


def test_a_camera_that_is_not_plugged_in_is_missing(parts: dict[str, Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cameras", list)

    def broken() -> list[str]:
        raise RuntimeError("sound server on fire")

    monkeypatch.setattr(doctor, "_microphones", broken)
    found = examine()
    assert found["targets"]["camera"]["missing"][0]["problem"] == "none found"
    assert "sound server on fire" in found["targets"]["microphone"]["missing"][0]["problem"]
    assert "sound server on fire" in page(found)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name", "not installed"),
        ("import os; os.abort()", "ends the program that loads it (SIGABRT)"),
        ("raise OSError('libx.so: cannot open')", "OSError: libx.so: cannot open"),
        ("from clcr_edge.errors import MissingPartError\nraise MissingPartError('no GPU; buy one')", "no GPU"),
        ("import time; time.sleep(60)", "did not load within 3 s"),
        ("pass", "says nothing of itself"),
    ],
)
def test_a_part_that_breaks_is_one_line(code: str, said: str) -> None:
    part = try_part("x", code, timeout_s=3)
    assert part.problem is not None
    assert said in part.problem
    assert "\n" not in part.problem
    assert "buy one" not in part.problem, "the remedy has a place of its own"


def test_jetpack_is_read_from_l4t(tmp_path: Path) -> None:
    (tmp_path / "release").write_text(RELEASE)
    assert machine.l4t_version(tmp_path / "release") == "36.4.3"
    assert machine.l4t_version(tmp_path / "none") is None
    (tmp_path / "release").write_text("something else")
    assert machine.l4t_version(tmp_path / "release") == "unknown"
    known = {"35.4.1": "5", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5.0": "6.2.2", "38.2.2": "7.0", "39.2.0": "7.2"}
    assert {v: machine.jetpack_of(v) for v in known} == known
    assert machine.jetpack_of("36.4.31") == "unknown"


def test_memory_and_processor_are_read_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 5000000 kB\nHugePages: 0\n")
    assert machine.memory_bytes(tmp_path / "meminfo") == (5_000_000 * 1024, 8_000_000 * 1024)
    assert machine.memory_bytes(tmp_path / "none") is None
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 62\nprocessor\t: 1\n")
    assert machine.cpu_name(tmp_path / "cpuinfo").endswith(", 2 cores")


def test_the_power_mode_is_asked_of_nvpmodel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.power_mode() == "MAXN_SUPER"


def test_the_gpu_of_a_driver_is_on_the_page(parts: dict[str, Part]) -> None:
    gpu: dict[str, Any] = {
        "index": 0,
        "name": "Orin",
        "compute_capability": "8.7",
        "multiprocessors": 16,
        "integrated": True,
        "total_bytes": 1,
    }
    parts["driver"] = Part("driver", {"version": "12.6", "gpus": [gpu]}, None)
    assert "0 Orin (compute capability 8.7, 16 multiprocessors, integrated)" in page(examine())
