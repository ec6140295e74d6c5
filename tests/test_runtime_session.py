"""A session: what a prediction carries, that it never looks at a clock but to measure, and that it stays bounded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from clcr_edge import bundle as bundles
from clcr_edge.errors import StreamError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.session import Session


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundles.read(tiny_bundle), "fp32")


def feed(session: Session, ticks: int, *, vision: bool = True, audio: bool = True, words: bool = True) -> list[Prediction]:
    rng = np.random.default_rng(0)
    session.start(100.0)
    out = []
    for k in range(ticks):
        t = 100.0 + k / 25
        if vision:
            session.push_frame(VideoFrame(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), t, 1_000 + k))
        if audio:
            session.push_audio(AudioChunk(rng.standard_normal(640).astype(np.float32) * 0.1, 16_000, t))
        if words and k % 10 == 9:
            session.push_word(Word("seven", t - 0.5, t - 0.1, 0.9))
        out.append(session.step())
    return out


def test_a_prediction_carries_what_a_person_can_check(engine: OnnxEngine) -> None:
    *_, last = feed(Session(engine), 60)
    assert last.t_s == pytest.approx(102.4)
    assert last.tick == 59
    assert sum(last.probs.values()) == pytest.approx(1.0, abs=1e-5)
    assert last.label == max(last.probs, key=lambda k: last.probs[k])
    assert sum(last.level_weights.values()) == pytest.approx(1.0, abs=1e-5)
    assert sum(last.modality_weights.values()) == pytest.approx(1.0, abs=1e-5)
    assert list(last.level_weights) == ["shallow", "mid", "deep"]
    assert list(last.modality_weights) == ["language", "vision", "audio"]
    assert all(0 < g < 1 for g in last.private_gates.values())
    assert all(0 <= p <= 1 for row in last.participation.values() for p in row.values())
    assert last.age_s["vision"] == pytest.approx(0.04)
    assert last.age_s["audio"] == pytest.approx(0.0)
    assert last.age_s["language"] == pytest.approx(0.14)
    assert last.frame_seq == 1_059
    assert last.latency_ms > 0


def test_ready_once_every_level_has_a_token(engine: OnnxEngine) -> None:
    ready = [p.ready for p in feed(Session(engine), 8, words=False)]
    assert ready == [False, False, False, True, True, True, True, True]  # the deep level fires at the fourth tick


@pytest.mark.parametrize("only", ["vision", "audio", "words"])
def test_one_modality_alone_has_all_the_weight(engine: OnnxEngine, only: str) -> None:
    asked = {"vision": False, "audio": False, "words": False, only: True}
    last = feed(Session(engine), 40, **asked)[-1]
    name = {"words": "language"}.get(only, only)
    assert last.modality_weights[name] == pytest.approx(1.0, abs=1e-6)
    assert [k for k, v in last.private_gates.items() if v > 0] == [name]
    assert all(v is None for k, v in last.age_s.items() if k != name)


def test_with_nothing_at_all_it_still_predicts(engine: OnnxEngine) -> None:
    last = feed(Session(engine), 10, vision=False, audio=False, words=False)[-1]
    assert sum(last.probs.values()) == pytest.approx(1.0, abs=1e-5)
    assert not last.ready
    assert last.frame_seq is None
    assert set(last.modality_weights.values()) == {0.0}


def test_sessions_share_an_engine_and_nothing_else(engine: OnnxEngine) -> None:
    alone = feed(Session(engine), 30)
    a, b = Session(engine), Session(engine)
    feed(b, 17, audio=False)
    assert [p.probs for p in feed(a, 30)] == [p.probs for p in alone]


@pytest.mark.parametrize(
    "counts", [[[5, 1, 1]] * 3, [[-1, 1, 1]] * 3, [[0, 2, 1]] * 3, [[0, -1, 0]] * 3, [[0, 1, 1], [1, 1, 1], [0, 1, 1]]]
)
def test_wrong_counts_never_reach_the_graph(counts: list[list[int]]) -> None:
    """A Gather at a wrong index passes in silence: the host checks."""
    zeros = np.zeros(4, np.float32)
    with pytest.raises(StreamError, match="n_new"):
        StepInputs(
            np.zeros((1, 1, 96, 96), np.float32),
            np.zeros((4, 40), np.float32),
            np.zeros((4, 24), np.int32),
            zeros,
            zeros,
            np.zeros(2, np.float32),
            np.array(counts, np.int32),
        )


def test_every_field_is_in_the_json(engine: OnnxEngine) -> None:
    from clcr_edge.runtime.json_lines import as_json

    line = as_json(feed(Session(engine), 5)[-1])
    assert {f.name for f in fields(Prediction)} <= set(line)


def test_running_a_bundle_loads_no_torch_and_no_onnx(tiny_bundle: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from clcr_edge import bundle\n"
        "from clcr_edge.runtime.onnx_engine import OnnxEngine\n"
        "from clcr_edge.runtime.session import Session\n"
        f"s = Session(OnnxEngine.from_bundle(bundle.read({str(tiny_bundle)!r})))\n"
        "s.start(0.0); s.step()\n"
        "import clcr_edge.cli\n"
        "bad = {'torch', 'onnx', 'cv2', 'vosk', 'sounddevice'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
