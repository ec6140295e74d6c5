"""The law of recovery: one longest memory after a fault, predictions are those of a run that never had it.

Every fault ends as packets that never come, come late or come with other content: sans-IO, two sessions, one with the hole.
The memory is computed from the configuration, and is no longer than it has to be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clcr_edge import bundle as bundles
from clcr_edge.config import StudentConfig
from clcr_edge.errors import EngineError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.session import Session

TICKS = 300
FIRST, LAST = 80, 130  # the fault: ticks of [FIRST, LAST)


@pytest.fixture(scope="module")
def engine(proof_bundle: Path) -> OnnxEngine:
    return OnnxEngine.from_bundle(bundles.read(proof_bundle), "fp32")


class Media:
    """Random media, and what a fault does to them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.images = rng.integers(0, 256, (TICKS, 96, 96, 3), dtype=np.uint8)
        self.samples = (0.1 * rng.standard_normal(TICKS * 640)).astype(np.float32)
        texts = ["zero", "one", "seven", "hello", "kiosk", "a", "nine"]  # a hole of five words must not fit their period
        self.words = {k: Word(texts[k // 10 % 7], k / 25 - 0.4, k / 25 - 0.1, 0.9) for k in range(9, TICKS, 10)}


def run(session: Session, media: Media, fault: str = "", last: int = LAST) -> list[Prediction]:
    session.start(0.0)
    out = []
    for k in range(TICKS):
        hit = FIRST <= k < last
        if not (hit and fault == "camera gone"):
            frozen = hit and fault == "camera frozen"
            shown = media.images[FIRST] if frozen else media.images[k]
            if hit and fault == "resolution changed":
                shown = np.ascontiguousarray(shown[::2, ::2])
            session.push_frame(VideoFrame(shown, k / 25, k))
        if not (hit and fault == "microphone gone"):
            # Blocks of 20 ms; a fault that ends inside a tick costs the rest of that tick.
            for half in (0, 320):
                if hit and fault == "one block lost" and k == FIRST and half:
                    continue
                at = k * 640 + half
                block = media.samples[at : at + 320]
                if hit and fault == "audio damaged":
                    block = np.zeros_like(block)
                session.push_audio(AudioChunk(block, 16_000, at / 16_000))
        if k in media.words and not (hit and fault == "recogniser gone"):
            session.push_word(media.words[k])
        out.append(session.step())
    return out


def distance(a: Prediction, b: Prediction) -> float:
    """Largest difference in anything that the network says."""

    def numbers(p: Prediction) -> list[float]:
        shares = [v for row in p.participation.values() for v in row.values()]
        return [*p.probs.values(), *p.level_weights.values(), *p.modality_weights.values(), *p.private_gates.values(), *shares]

    return float(np.abs(np.subtract(numbers(a), numbers(b))).max())


def memory_of(fault: str, config: StudentConfig) -> int:
    """Ticks from the last one that the fault touched to the last one that it can still be seen in."""
    if fault.startswith(("camera", "resolution")):
        return config.vision_memory
    return config.audio_memory


@pytest.fixture(scope="module")
def sound(engine: OnnxEngine) -> list[Prediction]:
    return run(Session(engine), Media())


@pytest.mark.parametrize(
    ("fault", "touched"),
    [
        ("camera gone", LAST - 1),
        ("camera frozen", LAST - 1),
        ("resolution changed", LAST - 1),
        ("microphone gone", LAST - 1),
        ("audio damaged", LAST - 1),
        ("one block lost", FIRST),
    ],
)
def test_a_memory_after_a_fault_nothing_is_left_of_it(
    fault: str, touched: int, engine: OnnxEngine, sound: list[Prediction]
) -> None:
    hurt = run(Session(engine), Media(), fault)
    apart = np.array([distance(a, b) for a, b in zip(sound, hurt, strict=True)])
    well = touched + memory_of(fault, engine.config) + 1
    assert well < TICKS - 40
    assert apart[:FIRST].max() == 0.0
    assert apart[FIRST:LAST].max() > 1e-4
    assert apart[well:].max() <= 1e-5
    # It takes no less: the fault is still there a few ticks before.
    assert apart[well - 12 : well].max() > 0.0


def test_of_a_deaf_spell_three_words_and_their_age_are_left(engine: OnnxEngine, sound: list[Prediction]) -> None:
    """A word knows the three before it: the first three after the hole differ until they have left the windows."""
    media = Media()
    hurt = run(Session(engine), media, "recogniser gone")
    apart = np.array([distance(a, b) for a, b in zip(sound, hurt, strict=True)])
    third = sorted(k for k in media.words if k >= LAST)[2]
    well = third + engine.config.word_memory + 1
    assert apart[LAST : third + 1].max() > 1e-3
    assert apart[well:].max() <= 1e-5
    assert apart[well - 12 : well].max() > 0.0


def test_the_memories_of_the_shipped_shape(engine: OnnxEngine) -> None:
    config = engine.config
    assert (config.vision_memory, config.audio_memory, config.word_memory) == (113, 118, 64)  # 4.5, 4.7 and 2.6 s


class Faulty:
    """The real engine, failing as ONNX Runtime does in the given steps."""

    def __init__(self, engine: OnnxEngine, fails: set[int]) -> None:
        self.engine, self.config, self.precision, self._fails, self.calls = engine, engine.config, "fp32", fails, 0

    def initial_state(self) -> State:
        return self.engine.initial_state()

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        self.calls += 1
        if self.calls - 1 in self._fails:
            # A real failure of ONNX Runtime: a state of the wrong shape.
            name = next(iter(state))
            return self.engine.step(inputs, {**state, name: np.zeros((1, 1), np.float32)})
        return self.engine.step(inputs, state)


def test_a_step_that_fails_once_is_computed_again_and_changes_nothing(engine: OnnxEngine, sound: list[Prediction]) -> None:
    session = Session(Faulty(engine, {50, 200}))
    hurt = run(session, Media())
    assert [distance(a, b) for a, b in zip(sound, hurt, strict=True)] == [0.0] * TICKS
    assert session.stats.engine_retries == 2


def test_an_engine_that_stays_broken_is_one_line(engine: OnnxEngine) -> None:
    session = Session(Faulty(engine, {50, 51}))
    with pytest.raises(EngineError, match=r"ONNX Runtime failed in a step of the fp32 graph \(.*\); start again") as caught:
        run(session, Media())
    assert "\n" not in str(caught.value)
