"""The ladder's rungs: each graph is the reference with that change, and a stream goes from any to any other and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from test_laws import Recording, hold_free, offline, pieces_of, stream  # noqa: E402

from clcr_edge import bundle as bundles  # noqa: E402
from clcr_edge import toml_io  # noqa: E402
from clcr_edge.calibration import sets  # noqa: E402
from clcr_edge.errors import BundleError  # noqa: E402
from clcr_edge.export.ladder import MIN_SAVING, build_ladder, changes_of  # noqa: E402
from clcr_edge.export.step import OUTPUTS  # noqa: E402
from clcr_edge.export.variants import holding_frame, with_window, without_sound  # noqa: E402
from clcr_edge.model.student import Features, Student  # noqa: E402
from clcr_edge.packets import AudioChunk, Modality, Prediction, VideoFrame, Word  # noqa: E402
from clcr_edge.runtime.ladder import Ladder, Rung, open_ladder, read_rungs, to_table  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402
from clcr_edge.runtime.session import Session  # noqa: E402
from clcr_edge.runtime.step_state import resized, window_of  # noqa: E402

TICKS = 160
RUNGS = (
    Rung("vision-half-rate", vision_every=2, graph_held="held", saving=0.2),
    Rung("half-windows", window=8, vision_every=2, graph="w8", graph_held="w8.held", saving=0.4),
    Rung("vision-off", window=8, vision_every=0, graph="w8.held", graph_held="w8.held", saving=0.5),
    Rung("audio-off", audio=False, graph="deaf", graph_held="deaf", saving=0.6),
    Rung("half-rate", tick_every=2, saving=0.7),
    Rung("quarter-rate", tick_every=4, vision_every=0, graph="held", graph_held="held", saving=0.8),
)


@pytest.fixture(scope="module")
def short_model(student):  # type: ignore[no-untyped-def]
    return with_window(student, 8)


@pytest.fixture(scope="module")
def engines(student, step_model, short_model):  # type: ignore[no-untyped-def]
    models = {
        "": step_model,
        "held": holding_frame(step_model),
        "w8": short_model,
        "w8.held": holding_frame(short_model),
        "deaf": without_sound(step_model),
    }
    return {n: OnnxEngine(m.SerializeToString(), hold_free(student), "fp32") for n, m in models.items()}  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def ladder(engines: dict[str, OnnxEngine]) -> Ladder:
    return Ladder(engines[""], RUNGS, engines)


def play(session: Session, recording: Recording, rung_at: Callable[[int], int] = lambda tick: 0) -> list[Prediction | None]:
    """The recording through a session whose rung is set before every tick; None for ticks that are skipped."""
    session.start(0.0)
    words = list(recording.words)
    made: list[Prediction | None] = []
    for tick in range(recording.ticks):
        if recording.vision[tick]:
            session.push_frame(recording.frame(tick))
        if recording.audio[tick]:
            session.push_audio(recording.chunk(tick * 640, (tick + 1) * 640))
        while words and words[0][0] == tick:
            session.push_word(words.pop(0)[1])
        session.rung = rung_at(tick)
        if session.due:
            made.append(session.step())
        else:
            session.skip()
            made.append(None)
    return made


def probs(predictions: list[Prediction | None], last: int) -> np.ndarray:
    return np.array([list(p.probs.values()) for p in predictions[-last:] if p is not None])


class TestGraphs:
    def test_a_shorter_window_equals_the_student_configured_so(self, student, engines) -> None:  # type: ignore[no-untyped-def]
        config = dataclasses.replace(student.config, model=dataclasses.replace(student.config.model, window=8))
        short = Student(config).eval()
        short.load_state_dict(student.state_dict())
        recording = Recording(TICKS, seed=11)
        wanted = offline(short, recording)
        got = stream(engines["w8"], recording, pieces_of("tick")).stacked()
        assert max(np.abs(wanted[n] - got[n]).max() for n in OUTPUTS) <= 1e-5
        long = offline(student, recording)
        assert np.abs(long["probs"] - got["probs"]).max() > 1e-2, "eight tokens or sixteen: this test would see nothing"

    def test_held_frames_equal_the_student_with_repeated_features(self, student, ladder) -> None:  # type: ignore[no-untyped-def]
        recording = Recording(TICKS, seed=12)
        recording.vision[:] = True
        encode = student.encode

        def repeated(batch):  # type: ignore[no-untyped-def]
            features = encode(batch)
            frames = features.frames.clone()
            frames[:, 2::2] = frames[:, 1:-1:2]
            frames[:, 0] = 0.0
            return Features(frames, {**features.levels, Modality.VISION: student.vision_tcn(frames)})

        class Holding:
            config, fuse, windows = student.config, student.fuse, student.windows
            encode = staticmethod(repeated)

        recording.vision[0] = False  # nothing has been looked at when tick 0 passes
        wanted = offline(Holding(), recording)["probs"]
        recording.vision[0] = True
        session = Session(_long_hold(ladder), _ladder_of(_long_hold(ladder), ladder))
        got = probs(play(session, recording, lambda tick: 1), TICKS)
        assert np.abs(wanted - got).max() <= 1e-5
        assert np.abs(offline(student, recording)["probs"] - got).max() > 1e-2

    def test_a_modality_that_is_off_equals_one_that_is_absent(self, student, ladder) -> None:  # type: ignore[no-untyped-def]
        for rung, gone in ((Rung("v", vision_every=0, graph="held", graph_held="held"), "vision"), (RUNGS[3], "audio")):
            recording = Recording(TICKS, seed=13)
            only = Ladder(ladder._engines[""], [rung], ladder._engines)
            got = probs(play(Session(ladder._engines[""], only), recording, lambda tick: 1), TICKS)
            getattr(recording, gone)[:] = False
            wanted = offline(student, recording)["probs"]
            assert np.abs(wanted - got).max() <= 1e-5, gone

    def test_what_is_left_out_is_gone_from_the_graph(self, step_model) -> None:  # type: ignore[no-untyped-def]
        held, deaf = holding_frame(step_model), without_sound(step_model)
        for model, gone in ((held, "frame_"), (deaf, "sound_")):
            assert not [i.name for i in model.graph.initializer if i.name.startswith(gone)]
            assert [v.name for v in model.graph.input] == [v.name for v in step_model.graph.input]
            assert [v.name for v in model.graph.output] == [v.name for v in step_model.graph.output]
        assert held.ByteSize() < 0.8 * step_model.ByteSize()


def _long_hold(ladder: Ladder) -> OnnxEngine:
    """The engine of rung 0 for a student whose frames stand in for 0.5 s: a held frame is not an absent one."""
    engine = ladder._engines[""]
    assert isinstance(engine, OnnxEngine)
    copy = OnnxEngine.__new__(OnnxEngine)
    copy.__dict__.update(engine.__dict__)
    copy.config = dataclasses.replace(engine.config, tick=dataclasses.replace(engine.config.tick, hold_frame_s=0.5))
    return copy


def _ladder_of(engine: OnnxEngine, ladder: Ladder) -> Ladder:
    return Ladder(engine, ladder.rungs[1:], ladder._engines)


class TestState:
    def test_a_state_made_shorter_keeps_the_newest_and_made_longer_holds_no_more(self, engines) -> None:  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(0)
        state = {n: rng.random(v.shape, np.float32) for n, v in engines[""].initial_state().items()}
        short = resized(state, 8)
        np.testing.assert_array_equal(short["tokens"], state["tokens"][:, :, 8:])
        np.testing.assert_array_equal(short["word_ages"], state["word_ages"][8:])
        assert {n: v.shape for n, v in short.items()} == {n: v.shape for n, v in engines["w8"].initial_state().items()}
        back = resized(short, 16)
        np.testing.assert_array_equal(back["tokens"][:, :, 8:], short["tokens"])
        assert not back["tokens"][:, :, :8].any()
        assert window_of(back) == 16
        assert resized(state, 16) is state
        for name in ("past_fbank", "past_features", "past_presence", "past_words", "phase"):
            assert back[name] is state[name]

    def test_a_stream_that_goes_down_continues_as_the_smaller_graph_would_have(self, ladder, engines) -> None:  # type: ignore[no-untyped-def]
        """After the switch the short windows hold exactly what a run on the small graph alone would hold."""
        recording = Recording(TICKS, seed=14)
        only = Ladder(engines[""], [Rung("w", window=8, graph="w8", graph_held="w8")], {"w8": engines["w8"]})
        switched = play(Session(engines[""], only), recording, lambda tick: int(tick >= 60))
        alone = play(Session(engines["w8"]), recording)
        for a, b in zip(switched[60:], alone[60:], strict=True):
            assert a is not None
            assert b is not None
            assert max(abs(a.probs[k] - b.probs[k]) for k in a.probs) <= 1e-6

    @pytest.mark.parametrize("rung", range(1, len(RUNGS) + 1))
    def test_up_again_the_predictions_are_the_whole_networks(self, ladder, rung: int) -> None:  # type: ignore[no-untyped-def]
        """One receptive field after recovery: deep windows (64 ticks), the convolutions before them, the sound's context."""
        field = 16 * 4 + 8 * (1 + 2 + 4) + 5
        recording = Recording(30 + 40 + field + 12, seed=15)
        recording.vision[30:], recording.audio[30:] = True, True
        whole = play(Session(ladder._engines[""]), recording)
        shed = play(Session(ladder._engines[""], ladder), recording, lambda tick: rung if 30 <= tick < 70 else 0)
        during = [i for i in range(31, 70) if shed[i] is not None]
        moved = max(abs(shed[i].probs[k] - whole[i].probs[k]) for i in during for k in shed[i].probs)  # type: ignore[union-attr]
        assert moved > 1e-3, "the rung changed nothing: this test would see nothing"
        assert all(shed[i].rung == rung for i in during)  # type: ignore[union-attr]
        assert np.abs(probs(whole, 12) - probs(shed, 12)).max() <= 1e-6

    def test_every_rung_to_every_rung(self, ladder) -> None:  # type: ignore[no-untyped-def]
        recording = Recording(120, seed=16)
        rungs = np.random.default_rng(3).integers(0, len(RUNGS) + 1, 120)
        made = play(Session(ladder._engines[""], ladder), recording, lambda tick: int(rungs[tick]))
        assert all(p is None or np.isfinite(list(p.probs.values())).all() for p in made)
        again = play(Session(ladder._engines[""], ladder), recording, lambda tick: int(rungs[tick]))
        for a, b in zip(made, again, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert dataclasses.replace(a, latency_ms=0.0) == dataclasses.replace(b, latency_ms=0.0)


class TestSkippedTicks:
    def test_half_the_ticks_are_predicted_and_nothing_waits_for_ever(self, ladder) -> None:  # type: ignore[no-untyped-def]
        recording = Recording(80, seed=17)
        recording.vision[:], recording.audio[:] = True, True
        recording.words = [(20, Word("seven", 0.5, 0.8))]
        session = Session(ladder._engines[""], ladder)
        made = play(session, recording, lambda tick: 5)
        assert [i for i, p in enumerate(made) if p is not None] == list(range(1, 80, 2))
        assert all(p is None or (p.tick, p.frame_seq, p.age_s["audio"]) == (i, i, 0.0) for i, p in enumerate(made))
        first = next(p for p in made if p is not None and p.age_s["language"] is not None)
        assert first.tick == 21  # the word that came in the skipped tick 20
        assert (session.stats.samples_used, session.stats.samples_missing, session.stats.words_used) == (80 * 640, 0, 1)
        assert (session.stats.frames_used, session.stats.frames_unused) == (40, 40)

    def test_the_sound_of_a_skipped_tick_is_heard(self, ladder) -> None:  # type: ignore[no-untyped-def]
        def last(loud: bool) -> Prediction:
            session = Session(ladder._engines[""], ladder)
            session.start(0.0)
            session.rung = 5
            made = None
            for tick in range(12):
                noise = np.random.default_rng(tick).standard_normal(640).astype(np.float32)
                session.push_audio(AudioChunk(noise * (0.3 if loud and tick == 10 else 0.01), 16_000, tick / 25))
                if session.due:
                    made = session.step()
                else:
                    session.skip()
            assert made is not None
            return made

        quiet, heard = last(False), last(True)
        assert max(abs(quiet.probs[k] - heard.probs[k]) for k in quiet.probs) > 1e-4

    def test_frames_are_not_made_small_where_nobody_looks(self, ladder, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
        from clcr_edge.runtime import ticker

        seen: list[int] = []
        real = vars(ticker)["luma_square"]

        def counted(image, size):  # type: ignore[no-untyped-def]
            seen.append(1)
            return real(image, size)

        monkeypatch.setattr(ticker, "luma_square", counted)
        for rung, wanted in ((0, 8), (1, 4), (3, 0), (5, 4)):
            seen.clear()
            session = Session(ladder._engines[""], ladder)
            session.start(0.0)
            session.rung = rung
            for tick in range(8):
                session.push_frame(VideoFrame(np.zeros((96, 96, 3), np.uint8), tick / 25, tick))
                if session.due:
                    session.step()
                else:
                    session.skip()
            assert len(seen) == wanted, rung
            assert len(session._ticker._frames) <= 2


@pytest.fixture(scope="module")
def built(student, step_model, short_model):  # type: ignore[no-untyped-def]
    _, checks = sets.own_sets(check_streams=1)
    engine = OnnxEngine(step_model.SerializeToString(), student.config, "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clcr_edge.export.ladder.with_window", lambda *_: short_model)  # exporting takes seconds
        return build_ladder(student, step_model, engine, checks, lambda *_: None)


class TestBuild:
    def test_every_change_is_measured_and_only_those_that_pay_are_rungs(self, built, student) -> None:  # type: ignore[no-untyped-def]
        changes = {c["change"]: c for c in built.about["changes"]}
        assert set(changes) == set(changes_of(student.config))
        assert {r.name for r in built.rungs} == {n for n, c in changes.items() if c["rung"]}
        assert all(c["why"] for c in changes.values())
        # Vision is the dearest part of a tick with a camera of 640 x 480: leaving it out must pay on any machine.
        assert changes["vision-off"]["saving"] > MIN_SAVING
        costs = [1.0, *(1.0 - r.saving for r in built.rungs)]
        assert all(b < 0.95 * a for a, b in pairwise(costs)), costs
        assert {f for r in built.rungs for f in (r.graph, r.graph_held) if f} == set(built.graphs)

    def test_through_the_manifest_and_back(self, built, student, step_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        table = {"tick_ms": 1.5, **to_table(built.rungs)}
        bundle = written(tmp_path / "b", student, step_model, built.graphs, {"ladder": table})
        assert read_rungs(bundle) == built.rungs
        engine = OnnxEngine.from_bundle(bundle)
        opened = open_ladder(bundle, engine)
        assert opened is not None
        assert opened.costs == tuple([1.0, *(1.0 - r.saving for r in built.rungs)])
        session = Session(engine, opened)
        session.start(0.0)
        for rung in range(len(opened.rungs)):
            session.rung = rung
            for _ in range(4):
                if session.due:
                    assert session.step().rung == rung
                else:
                    session.skip()


def written(path: Path, student, step_model, graphs, tables) -> bundles.Bundle:  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> dict[str, object]:
        for name, model in {"step.fp32.onnx": step_model, **graphs}.items():
            onnx.save(model, folder / name)
        return {"chosen": {"precision": "fp32", "why": "only fp32"}, **tables}

    return bundles.write(path, student.config, {"fp32": "step.fp32.onnx"}, fill)


def test_graphs_are_opened_at_once_or_by_the_tick_that_needs_them(student, step_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rung = Rung("vision-half-rate", vision_every=2, graph_held="held.onnx", saving=0.2)
    graphs = {"held.onnx": holding_frame(step_model)}
    bundle = written(tmp_path / "b", student, step_model, graphs, {"ladder": to_table([rung])})
    (bundle.path / "held.onnx").rename(tmp_path / "held.onnx")
    engine = OnnxEngine.from_bundle(bundle)
    with pytest.raises(BundleError, match=r"held\.onnx"):
        open_ladder(bundle, engine)
    session = Session(engine, open_ladder(bundle, engine, when_needed=True))
    session.start(0.0)
    assert session.step().rung == 0
    (tmp_path / "held.onnx").rename(bundle.path / "held.onnx")
    session.rung = 1
    assert [session.step().rung for _ in range(2)] == [1, 1]


def test_a_bundle_without_a_ladder_loads_and_sheds_nothing(proof_bundle: Path) -> None:
    bundle = bundles.read(proof_bundle)
    assert read_rungs(bundle) == ()
    assert open_ladder(bundle, OnnxEngine.from_bundle(bundle)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rungs": ["a", "b"]}, "rung 'b' has no table"),
        ({"rungs": "a"}, "needs rungs"),
        ({"a": {"vision_every": "2"}}, "vision_every = '2' is no int"),
        ({"a": {"vision_every": -1}}, "outside its range"),
        ({"a": {"colour": 1}}, "unknown key 'colour'"),
        ({"a": {"graph": "step.gone.onnx"}}, "which \\[files\\] does not list"),
        ({"a": {"graph": "../step.onnx"}}, "which \\[files\\] does not list"),
    ],
)
def test_a_damaged_ladder_is_named(proof_bundle: Path, change: dict[str, object], said: str) -> None:
    bundle = bundles.read(proof_bundle)
    table = {"rungs": ["a"], "a": {"vision_every": 2}, **change}
    manifest = toml_io.loads(toml_io.dumps({**bundle.manifest, "ladder": table}))
    with pytest.raises(BundleError, match=said):
        read_rungs(dataclasses.replace(bundle, manifest=manifest))
