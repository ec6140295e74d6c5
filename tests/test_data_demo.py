"""The demo clip: what it says of itself is what is in it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from clcr_edge.data.sound import active_power

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """examples/make_demo_clip.py."""
    spec = importlib.util.spec_from_file_location("make_demo_clip", EXAMPLES / "make_demo_clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_demo_clip"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def test_clip_and_truth() -> None:
    path = EXAMPLES / "demo.mp4"
    assert path.stat().st_size < 1_500_000
    with av.open(str(path)) as clip:
        frames = [f.to_ndarray(format="gray8").mean() for f in clip.decode(video=0)]
    with av.open(str(path)) as clip:
        sound = np.concatenate([f.to_ndarray()[0] for f in clip.decode(audio=0)])
    truth = json.loads((EXAMPLES / "demo.json").read_text(encoding="utf-8"))
    assert len(frames) == truth["seconds"] * 25
    assert abs(len(sound) / 16_000 - truth["seconds"]) < 0.2
    covered = [round(t * 25) for t in truth["lens_covered_s"]]
    assert max(frames[covered[0] : covered[1]]) < 15 < min(frames[: covered[0]])
    said = [e["said_s"] for e in (*truth["events"], *truth["other_words"]) if e["said_s"]]
    for start_s, end_s in said:
        assert active_power(sound[int(start_s * 16_000) : int(end_s * 16_000)]) > 1e-3
    silent = np.ones(len(sound), bool)
    for start_s, end_s in said:
        silent[int((start_s - 0.1) * 16_000) : int((end_s + 0.1) * 16_000)] = False
    assert np.square(sound[silent]).mean() < 1e-5
    for before, after in zip(truth["events"][:-1], truth["events"][1:], strict=True):
        assert after["onset_s"] - before["end_s"] >= 0.6
    assert any(e["shown_s"] is None for e in truth["events"])
    assert any(e["said_s"] is None for e in truth["events"])


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_script_gives_this_truth(script: ModuleType) -> None:
    _, times = script.say(np.random.default_rng(script.SEED))
    made = json.loads(json.dumps(script.truth(times)))
    shipped = json.loads((EXAMPLES / "demo.json").read_text(encoding="utf-8"))
    assert [e["label"] for e in made["events"]] == [e["label"] for e in shipped["events"]]
    for a, b in zip(made["events"], shipped["events"], strict=True):
        # Another release of espeak-ng may speak a little faster.
        assert a["onset_s"] == b["onset_s"]
        assert abs(a["offset_s"] - b["offset_s"]) < 0.2


def test_script_writes_a_clip(script: ModuleType, tmp_path: Path) -> None:
    frames = np.full((25, 480, 640, 3), 90, np.uint8)
    tone = (0.2 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    script.write(tmp_path / "x.mp4", frames, tone)
    with av.open(str(tmp_path / "x.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 25
    with av.open(str(tmp_path / "x.mp4")) as clip:
        sound = np.concatenate([f.to_ndarray()[0] for f in clip.decode(audio=0)])
    assert abs(np.square(sound[2_000:14_000]).mean() - 0.02) < 0.004
