"""The laws of the design: streamed == offline, no leak, reset. Random weights, random media, devices that come and go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.export.step import INPUTS, OUTPUTS, StepGraph, initial_state  # noqa: E402
from clcr_edge.features import fbank_of_ticks, word_ngrams  # noqa: E402
from clcr_edge.model.bases import JointBases  # noqa: E402
from clcr_edge.model.student import TickBatch  # noqa: E402
from clcr_edge.packets import AudioChunk, Modality, VideoFrame, Word  # noqa: E402
from clcr_edge.runtime.engine import StepInputs  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402
from clcr_edge.runtime.session import Session  # noqa: E402

TICKS = 2_100


class Recording:
    """Random media of T ticks, in which vision, audio and words come and go."""

    def __init__(self, ticks: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ticks = ticks
        self.images = rng.integers(0, 256, (7, 96, 96), dtype=np.uint8)
        self.shown = rng.integers(0, 7, ticks)
        self.vision = _coming_and_going(ticks, rng)
        self.audio = _coming_and_going(ticks, rng)
        self.samples = (rng.standard_normal(ticks * 640) * rng.uniform(0.001, 0.3, ticks).repeat(640)).astype(np.float32)
        vocabulary = ["zero", "one", "seven", "hello", "Kiosk", "a", "internationalisation", "ça"]
        self.words: list[tuple[int, Word]] = []
        for tick in np.flatnonzero(rng.random(ticks) < 0.06):
            for _ in range(int(rng.integers(1, 4))):
                end = (tick + 1) / 25 - float(rng.uniform(0.0, 1.5))
                text = vocabulary[int(rng.integers(len(vocabulary)))]
                self.words.append((int(tick), Word(text, end - 0.3, end, float(rng.random()))))

    def frame(self, tick: int) -> VideoFrame:
        image = np.repeat(self.images[self.shown[tick]][..., None], 3, axis=2)
        return VideoFrame(image, tick / 25, tick)

    def chunk(self, first: int, last: int) -> AudioChunk:
        return AudioChunk(self.samples[first:last], 16_000, first / 16_000)

    def batch(self, config) -> TickBatch:  # type: ignore[no-untyped-def]
        tick = config.tick
        n = max(1, len(self.words))
        ngrams, confidence = np.zeros((1, n, tick.ngrams_per_word), np.int64), np.zeros((1, n), np.float32)
        arrives, age = np.full((1, n), 1 << 30), np.zeros((1, n), np.int64)
        for i, (at, word) in enumerate(self.words):
            ngrams[0, i], confidence[0, i], arrives[0, i] = word_ngrams(word.text, tick), word.confidence, at
            age[0, i] = int(np.floor(((at + 1) / 25 - word.end_s) * 25 + 1e-6))
        fbank = fbank_of_ticks(self.samples, self.audio, tick)
        arrays = (self.images[self.shown], self.vision, fbank, self.audio)
        return TickBatch(
            *(torch.from_numpy(x[None]) for x in arrays),
            *(torch.from_numpy(x) for x in (ngrams, confidence, arrives, age)),
        )


def _coming_and_going(ticks: int, rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    there = np.ones(ticks, bool)
    at = int(rng.integers(0, 30))
    while at < ticks:
        gap = int(rng.choice([1, 2, 3, 7, 40, 160]))
        there[at : at + gap] = False
        at += gap + int(rng.choice([1, 2, 5, 30, 200]))
    return there


def offline(student, recording: Recording) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def, type-arg]
    """The textbook model over the whole recording."""
    batch = recording.batch(student.config)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in OUTPUTS}
    with torch.no_grad():
        features = student.encode(batch)
        for ticks in torch.arange(recording.ticks).split(300):
            out = student.fuse(student.windows(batch, features, ticks.unsqueeze(0)))
            found = (
                torch.softmax(out.aggregated.logits, -1),
                *out.aggregated[1:4],
                out.exchanged.participation,
                out.exchanged.there.float(),
            )
            for name, value in zip(OUTPUTS, found, strict=True):
                rows[name].append(value)
    return {name: torch.cat(parts).numpy() for name, parts in rows.items()}


class Tap:
    """An engine that keeps what went in and came out."""

    def __init__(self, engine: OnnxEngine) -> None:
        self.engine, self.config, self.precision = engine, engine.config, engine.precision
        self.inputs: list[StepInputs] = []
        self.outputs: list[dict[str, np.ndarray]] = []  # type: ignore[type-arg]

    def initial_state(self):  # type: ignore[no-untyped-def]
        return self.engine.initial_state()

    def step(self, inputs, state):  # type: ignore[no-untyped-def]
        outputs, new = self.engine.step(inputs, state)
        self.inputs.append(inputs)
        self.outputs.append({name: getattr(outputs, name) for name in OUTPUTS})
        return outputs, new

    def stacked(self) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        return {name: np.stack([o[name] for o in self.outputs]) for name in OUTPUTS}


def stream(engine, recording: Recording, pieces: Iterator[int]) -> Tap:  # type: ignore[no-untyped-def]
    """Push the recording through a session, audio cut into the given pieces."""
    tap = Tap(engine)
    session = Session(tap)
    session.start(0.0)
    pushed = 0
    words = list(recording.words)
    for tick in range(recording.ticks):
        end = (tick + 1) * 640
        if recording.vision[tick]:
            session.push_frame(recording.frame(tick))
        while pushed < end:
            # Never across a boundary between there and not there: that is a gap in the stamps.
            run_end = pushed
            while run_end < recording.ticks * 640 and recording.audio[run_end // 640] == recording.audio[pushed // 640]:
                run_end = (run_end // 640 + 1) * 640
            last = min(pushed + next(pieces), run_end)
            if recording.audio[pushed // 640]:
                session.push_audio(recording.chunk(pushed, last))
            pushed = last
        while words and words[0][0] == tick:
            session.push_word(words.pop(0)[1])
        session.step()
    return tap


def pieces_of(kind: str, seed: int = 0) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield {"tick": 640, "callback": 320, "odd": 1_024, "random": int(rng.integers(1, 3_000))}[kind]


@pytest.fixture(scope="module")
def engine(student, step_model) -> OnnxEngine:  # type: ignore[no-untyped-def]
    return OnnxEngine(step_model.SerializeToString(), student.config, "fp32")


def hold_free(student):  # type: ignore[no-untyped-def]
    """The offline model knows no held frames: let a missing frame be missing at once."""
    import dataclasses

    config = student.config
    return dataclasses.replace(config, tick=dataclasses.replace(config.tick, hold_frame_s=0.045))


@pytest.mark.slow
def test_streamed_equals_offline_over_thousands_of_ticks(student, step_model) -> None:  # type: ignore[no-untyped-def]
    engine = OnnxEngine(step_model.SerializeToString(), hold_free(student), "fp32")
    recording = Recording(TICKS, seed=3)
    wanted = offline(student, recording)
    got = stream(engine, recording, pieces_of("random")).stacked()
    for name in OUTPUTS:
        worst = np.abs(wanted[name] - got[name]).reshape(TICKS, -1).max(axis=1)
        assert worst.max() <= 1e-5, (name, int(worst.argmax()), float(worst.max()))
        assert wanted[name].std() > 1e-2, f"{name} hardly moves: this test would see nothing"
    # No growth: the last quarter is no worse than the limit divided by two.
    assert np.abs(wanted["probs"] - got["probs"])[-TICKS // 4 :].max() <= 5e-6


@pytest.mark.parametrize("start", range(8))
def test_every_phase(student, step_model, start: int) -> None:  # type: ignore[no-untyped-def]
    """The streams of a recording that begins `start` ticks later see their levels fire at other ticks: still equal."""
    engine = OnnxEngine(step_model.SerializeToString(), hold_free(student), "fp32")
    recording = Recording(150, seed=20 + start)
    recording.vision[:start] = False
    recording.audio[: 2 * start] = False
    wanted = offline(student, recording)
    got = stream(engine, recording, pieces_of("tick")).stacked()
    assert max(np.abs(wanted[name] - got[name]).max() for name in OUTPUTS) <= 1e-5


def test_every_chunking_gives_identical_predictions(engine) -> None:  # type: ignore[no-untyped-def]
    recording = Recording(200, seed=5)
    runs = [stream(engine, recording, pieces_of(kind)).stacked() for kind in ("tick", "callback", "odd", "random")]
    for name in OUTPUTS:
        for run in runs[1:]:
            np.testing.assert_array_equal(run[name], runs[0][name])


@pytest.mark.parametrize("told_late", [0, 20])
def test_a_lone_word_is_seen_for_word_ticks_and_no_longer(student, step_model, told_late: int) -> None:  # type: ignore[no-untyped-def]
    """Ages count from a word's end: one told 0.8 s late is still seen by the shallow level, for the ticks that are left."""
    model, said = student.config.model, 4
    recording = Recording(90, seed=6)
    recording.words = [(said + told_late, Word("seven", said / 25 - 0.2, (said + 1) / 25, 0.9))]
    engine = OnnxEngine(step_model.SerializeToString(), hold_free(student), "fp32")
    seen = [offline(student, recording), stream(engine, recording, pieces_of("tick")).stacked()]
    assert model.window < model.word_ticks, "or the window of the shallow level decides"
    for level, stride in enumerate(model.strides):
        last = said + max(model.word_ticks, model.window * stride)
        for there in (run["there"][:, level, Modality.LANGUAGE] for run in seen):
            assert np.flatnonzero(there).tolist() == list(range(said + told_late, last))


def test_a_wrong_window_would_be_caught(student, step_model) -> None:  # type: ignore[no-untyped-def]
    """The comparison has teeth: one token late, and law 1 fails by far."""
    engine = OnnxEngine(step_model.SerializeToString(), hold_free(student), "fp32")
    recording = Recording(120, seed=3)
    wanted = offline(student, recording)["probs"]
    got = stream(engine, recording, pieces_of("tick")).stacked()["probs"]
    assert np.abs(wanted[:-1] - got[1:]).max() > 1e-3


def test_reset_restores_the_initial_state(engine) -> None:  # type: ignore[no-untyped-def]
    recording = Recording(80, seed=9)
    tap = Tap(engine)
    session = Session(tap)
    for _ in range(2):
        session.start(0.0)
        for tick in range(recording.ticks):
            session.push_frame(recording.frame(tick))
            session.push_audio(recording.chunk(tick * 640, (tick + 1) * 640))
            session.step()
        session.reset()
    first, second = tap.outputs[: recording.ticks], tap.outputs[recording.ticks :]
    for a, b in zip(first, second, strict=True):
        for name in OUTPUTS:
            np.testing.assert_array_equal(a[name], b[name])


def test_garbage_in_absent_media_changes_nothing(student) -> None:  # type: ignore[no-untyped-def]
    """Masked values are replaced, not multiplied: NaN in an absent camera's frame leaves no trace, in this tick or later."""
    graph = StepGraph(student).eval()

    def run(poison: bool) -> list[torch.Tensor]:
        state: tuple[torch.Tensor, ...] = initial_state(student.config)
        results: tuple[torch.Tensor, ...] = ()
        noise = np.random.default_rng(1)
        for tick in range(12):
            frame = torch.from_numpy(noise.random((1, 1, 96, 96), np.float32))
            fbank = torch.from_numpy(noise.standard_normal((4, 40)).astype(np.float32))
            away = 3 <= tick < 6
            if poison and away:
                frame, fbank = frame * float("nan"), fbank * float("inf")
            due = [[0, int((tick + 1) % s == 0), int((tick + 1) % s == 0)] for s in (1, 2, 4)]
            inputs = (
                frame,
                fbank,
                torch.zeros(4, 24, dtype=torch.int32),
                torch.zeros(4),
                torch.zeros(4),
                torch.full((2,), float(not away)),
                torch.tensor(due, dtype=torch.int32),
            )
            assert len(inputs) == len(INPUTS)
            with torch.no_grad():
                results = graph(*inputs, *state)
            state = results[len(OUTPUTS) :]
        return list(results)

    for clean, poisoned in zip(run(False), run(True), strict=True):
        assert torch.equal(clean, poisoned)


class TestNoLeak:
    """Law 2: private coordinates move nobody else's stream."""

    @staticmethod
    def windows(student):  # type: ignore[no-untyped-def]
        generator = torch.Generator().manual_seed(0)
        h = torch.nn.functional.layer_norm(torch.randn(1, 3, 3, 32, 64, generator=generator), (64,))
        valid = torch.ones(1, 3, 3, 32, dtype=torch.bool)
        age = torch.arange(31, -1, -1).float().expand(1, 3, 3, 32)
        return h, valid, age

    @staticmethod
    def tokens(student, h, bases):  # type: ignore[no-untyped-def]
        from clcr_edge.model.intra_ced import Tokens

        columns = [[student.intra_ced.split(h[:, lv, m], lv, m, bases) for m in range(3)] for lv in range(3)]
        return Tokens(
            *(torch.stack([torch.stack([getattr(t, n) for t in row], 1) for row in columns], 1) for n in Tokens._fields)
        )

    @torch.no_grad()
    def test_private_coordinates_move_no_other_stream_exactly(self, student) -> None:  # type: ignore[no-untyped-def]
        h, valid, age = self.windows(student)
        tokens = self.tokens(student, h, student.intra_ced.bases())
        moved = tokens.private.clone()
        moved[:, :, Modality.VISION] += 3.0
        before, after = (student.intra_ced(t, valid, age) for t in (tokens, tokens._replace(private=moved)))
        assert torch.equal(before.shared, after.shared)
        others = [Modality.LANGUAGE, Modality.AUDIO]
        assert torch.equal(before.private[:, :, others], after.private[:, :, others])
        assert not torch.equal(before.private[:, :, Modality.VISION], after.private[:, :, Modality.VISION])
        # ... and the level weights, the modality weights and the other gates stay where they were.
        a, b = student.inter_cad(before), student.inter_cad(after)
        assert torch.equal(a.level_weights, b.level_weights)
        assert torch.equal(a.modality_weights, b.modality_weights)
        assert torch.equal(a.private_gates[:, others], b.private_gates[:, others])

    def moved_by(self, student, bases) -> float:  # type: ignore[no-untyped-def]
        """Change vision's normalised tokens along U_pr; how far do the other modalities' streams move?"""
        with torch.no_grad():
            h, valid, age = self.windows(student)
            shifted = h.clone()
            for level in range(3):
                direction = bases[1][level, Modality.VISION] @ torch.ones(bases[1].shape[-1])
                shifted[:, level, Modality.VISION] += direction / direction.norm() * 2.0
            others = [Modality.LANGUAGE, Modality.AUDIO]
            streams = [student.intra_ced(self.tokens(student, x, bases), valid, age).shared[:, :, others] for x in (h, shifted)]
            return float((streams[0] - streams[1]).abs().max())

    def test_tokens_moved_along_the_private_basis(self, student) -> None:  # type: ignore[no-untyped-def]
        with torch.no_grad():
            assert self.moved_by(student, student.intra_ced.bases()) <= 1e-6

    def test_independent_bases_would_fail(self, student) -> None:  # type: ignore[no-untyped-def]
        torch.manual_seed(1)
        with torch.no_grad():
            mine, other = student.intra_ced.bases(), JointBases(3, 3, 64, 24, 24)()
            assert self.moved_by(student, (mine[0], other[1])) > 1e-3
