"""The native engine: ONNX Runtime's predictions, bits that repeat, a cache that is safe, and the commands around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clcr_edge
from clcr_edge import bundle as bundles
from clcr_edge.bundle import Bundle
from clcr_edge.commands.engines import EngineName, native_line, open_engine
from clcr_edge.errors import EngineError, MissingPartError, StreamError, UsageError
from clcr_edge.export.native import ready
from clcr_edge.export.native.program import write_program
from clcr_edge.export.native.ready import open_native, ready_step
from clcr_edge.runtime import native_store
from clcr_edge.runtime.device_record import Verified, manifest_hash, write_verified
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.golden import compare, load_golden, rolled_out
from clcr_edge.runtime.ladder import open_ladder
from clcr_edge.runtime.native_engine import NativeEngine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import live
from clcr_edge.runtime.session import Session

CLIP = Path(__file__).resolve().parents[1] / "examples" / "demo.mp4"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of this module's own."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["XDG_CACHE_HOME"])
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="module")
def bundle(proof_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("native") / "bundle"
    shutil.copytree(proof_bundle, path)
    return bundles.read(path)


@pytest.fixture(scope="module")
def engine(bundle: Bundle, cache: Path) -> NativeEngine:
    return open_native(bundle)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clcr_edge", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


def test_golden_vectors_and_states_are_those_of_the_reference(engine: NativeEngine, bundle: Bundle) -> None:
    golden = load_golden(bundle.path / "golden.npz")
    assert max(v["max_abs"] for v in compare(engine, golden).values()) < 1e-5
    ours, theirs = engine.initial_state(), OnnxEngine.from_bundle(bundle).initial_state()
    reference = OnnxEngine.from_bundle(bundle)
    for inputs in golden.inputs:
        _, ours = engine.step(inputs, ours)
        _, theirs = reference.step(inputs, theirs)
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=5e-5, err_msg=name)


def test_streams_share_an_engine_and_states_go_from_one_engine_to_another(engine: NativeEngine, bundle: Bundle) -> None:
    golden, reference = load_golden(bundle.path / "golden.npz"), OnnxEngine.from_bundle(bundle)
    state, other = engine.initial_state(), engine.initial_state()
    for k, inputs in enumerate(golden.inputs):
        outputs, state = (engine if k % 2 else reference).step(inputs, state)
        engine.step(replace(inputs, frame=1.0 - inputs.frame), other)  # another stream, always at its start
        np.testing.assert_allclose(outputs.probs, golden.outputs["probs"][k], atol=2e-5)
    kept = {n: np.array(v) for n, v in state.items()}
    engine.step(golden.inputs[0], state)
    assert all(np.array_equal(kept[n], state[n]) for n in kept), "a step does not change the state that it was given"
    with pytest.raises(ValueError, match="read-only"):
        state["tokens"][...] = 0.0


def test_the_same_inputs_give_the_same_bits_wherever_they_lie(engine: NativeEngine, bundle: Bundle) -> None:
    golden = load_golden(bundle.path / "golden.npz")
    first = rolled_out(engine, golden)

    def moved(inputs: StepInputs, by: int) -> StepInputs:
        def copy(a: Any) -> Any:
            raw = np.empty(a.nbytes + 64, np.uint8)
            there = raw[by : by + a.nbytes].view(a.dtype).reshape(a.shape)
            there[...] = a
            return there

        return StepInputs(**{n: copy(a) for n, a in vars(inputs).items()})

    for by in (4, 12, 36):
        again = rolled_out(engine, replace(golden, inputs=tuple(moved(i, by) for i in golden.inputs)))
        assert all(np.array_equal(first[n], again[n]) for n in first)


def test_threads_may_step_at_once(engine: NativeEngine, bundle: Bundle) -> None:
    golden = load_golden(bundle.path / "golden.npz")
    wanted = rolled_out(engine, golden)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append([rolled_out(engine, golden) for _ in range(5)])) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert all(np.array_equal(wanted[n], r[n]) for several in found for r in several for n in wanted)


def test_nothing_of_another_shape_or_type_reaches_the_function(engine: NativeEngine, bundle: Bundle) -> None:
    inputs = load_golden(bundle.path / "golden.npz").inputs[0]
    state = engine.initial_state()
    for wrong, said in [
        ({"frame": inputs.frame[0]}, r"frame: float32 \[1, 96, 96\] given, this engine's is float32 \[1, 1, 96, 96\]"),
        ({"fbank": inputs.fbank.astype(np.float64)}, "fbank: float64"),
        ({"present": np.ones(1, np.float32)}, "present: float32"),
        ({"ngrams": inputs.ngrams.astype(np.int64)}, "ngrams: int64"),
    ]:
        with pytest.raises(StreamError, match=said):
            engine.step(replace(inputs, **wrong), state)
    with pytest.raises(StreamError, match="state tokens: float32"):
        engine.step(inputs, {n: v for n, v in state.items() if n != "tokens"})
    for out_of_range in (-1, 1 << 20):
        with pytest.raises(EngineError, match="ngrams or n_new are wrong"):
            engine.step(replace(inputs, ngrams=np.full_like(inputs.ngrams, out_of_range)), state)
    engine.step(inputs, state)  # and it goes on


def test_a_step_is_built_once_and_again_when_it_is_damaged(bundle: Bundle, engine: NativeEngine) -> None:
    told: list[str] = []
    stored, built = ready_step(bundle, None, told.append)
    assert not built
    assert told == []
    assert stored.difference < 1e-5
    damaged = stored.library.read_bytes()[:-1] + b"?"
    stored.library.unlink()  # this process has it loaded
    stored.library.write_bytes(damaged)
    _, built = ready_step(bundle, "fp32", told.append)
    assert built
    assert len(told) == 1
    (stored.library.parent / "step.toml").write_text("schema = 1\nweights_sha256 = 3")
    assert ready_step(bundle, None, told.append)[1]
    assert ready_step(bundle, None, told.append, force=True)[1]
    assert not list(stored.library.parent.parent.glob(".*")), "nothing is left beside it"
    with pytest.raises(EngineError, match="runs fp32 only, not int8"):
        ready_step(bundle, "int8", told.append)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_library_that_others_may_write_or_rename_is_not_loaded(bundle: Bundle, above: int) -> None:
    stored, _ = ready_step(bundle, None, print)
    folder = stored.library.parents[above]
    folder.chmod(0o777)
    try:
        for force in (False, True)[: 1 + (above > 0)]:  # the innermost folder is replaced by a build
            with pytest.raises(EngineError, match=rf"{folder.name}: others may write to it.*chmod go-w"):
                ready_step(bundle, None, print, force)
    finally:
        folder.chmod(0o700)
    stored.library.chmod(0o666)
    with pytest.raises(EngineError, match=r"\.so: others may write to it"):
        ready_step(bundle, None, print)
    stored.library.chmod(0o644)
    assert not ready_step(bundle, None, print)[1]


@pytest.mark.parametrize("named", ["", "relative/cache"])
def test_a_cache_is_never_looked_for_where_one_stands(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert native_store.cache_folder() == tmp_path / ".cache" / "clcr-edge" / "native"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(EngineError, match=r"no home folder.*XDG_CACHE_HOME"):
        native_store.cache_folder()


def test_another_agreement_on_blocks_is_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = ready.writer.__wrapped__()
    other = tmp_path / "arena.py"
    other.write_text("# another alignment")
    monkeypatch.setattr("clcr_edge.runtime.arena.__file__", str(other))
    assert ready.writer.__wrapped__() != before


def test_what_is_not_onnx_runtimes_is_not_used_and_not_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = write_program

    def wrong(*arguments: Any) -> Any:
        program = real(*arguments)
        return replace(program, source=program.source.replace("5.0000001201e-1f", "0.3f"))  # exp is off

    monkeypatch.setattr(ready, "write_program", wrong)
    with pytest.raises(EngineError, match=r"off by \d.* from ONNX Runtime \(at most 0.0001\)"):
        ready_step(bundle, None, print)
    assert not list(tmp_path.rglob("*.so"))
    monkeypatch.setattr(ready, "write_program", lambda *a: replace(real(*a), source="this is no C"))
    with pytest.raises(EngineError, match=r"cannot compile the step \(.*error"):
        ready_step(bundle, None, print)


def test_a_cache_that_cannot_be_written_is_one_line(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot be written .*XDG_CACHE_HOME"):
        ready_step(bundle, None, print)


def test_the_features_of_the_processor_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tmp_path / "x.onnx"
    graph.write_bytes(b"graph")
    here = native_store.folder_of(graph, "writer")
    assert native_store.folder_of(graph, "writer") == here
    assert native_store.folder_of(graph, "another") != here
    monkeypatch.setattr(native_store, "_features", lambda: "flags : fewer")
    assert native_store.folder_of(graph, "writer") != here


def test_what_verify_found_faster_here_is_run(bundle: Bundle) -> None:
    choice = Verified("native", "fp32", "because", 0.1, native_line(), manifest_hash(bundle))
    write_verified(bundle, choice)
    write_verified(bundle, replace(choice, engine="onnxruntime", p50_ms=0.2, machine="elsewhere"))
    open_native(bundle)
    told: list[str] = []
    assert isinstance(open_engine(bundle, None, None, told.append), NativeEngine)
    assert isinstance(open_engine(bundle, None, "fp32", told.append), OnnxEngine), "a precision by name is ONNX Runtime's"
    assert isinstance(open_engine(bundle, EngineName.onnxruntime, None, told.append), OnnxEngine)
    write_verified(bundle, replace(choice, machine="elsewhere"))
    assert isinstance(open_engine(bundle, None, None, told.append), OnnxEngine)
    assert told == []
    (bundle.path / "device.toml").unlink()


def test_without_a_compiler_a_run_goes_on_unless_it_was_asked_for(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ready, "find_compiler", lambda: (_ for _ in ()).throw(MissingPartError("no compiler; install one")))
    write_verified(bundle, Verified("native", "fp32", "because", 0.1, native_line(), manifest_hash(bundle)))
    told: list[str] = []
    opened = open_engine(bundle, None, None, told.append)
    assert isinstance(opened, OnnxEngine), "a record that came with a bundle builds nothing"
    assert told == [f"the native engine is not built here; it is by: clcr-edge build {bundle.path} --engine native"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(MissingPartError):
        open_engine(bundle, EngineName.native, None, told.append)
    (bundle.path / "device.toml").unlink()


def test_in_python_an_engine_is_opened_by_name(bundle: Bundle) -> None:
    session = clcr_edge.open_session(bundle.path, engine="native")
    session.push_frame(clcr_edge.VideoFrame(np.zeros((48, 64, 3), np.uint8), 0.0, seq=0))
    assert abs(sum(session.step().probs.values()) - 1.0) < 1e-5
    assert isinstance(clcr_edge.open_engine(bundle.path, engine="native"), NativeEngine)
    with pytest.raises(UsageError, match="engine 'gpu': one of onnxruntime, tensorrt, native"):
        clcr_edge.open_engine(bundle.path, engine="gpu")


def test_a_native_run_that_is_late_passes_over_ticks_and_keeps_up(engine: NativeEngine, tiny_bundle: Path) -> None:
    """A real live feed, real time: work of 60 ms a prediction, where a tick has 40."""
    ladder = open_ladder(bundles.read(tiny_bundle), engine)
    assert ladder is not None
    assert [r.name for r in ladder.rungs] == ["full"], "rungs are ONNX Runtime's"
    seen: list[int] = []
    notices: list[str] = []
    with live(Session(engine, ladder), listener=Listener(on_notice=notices.append)) as pipeline:
        begun_s = time.monotonic()
        for p in pipeline:
            assert p.rung == 0
            seen.append(p.tick)
            time.sleep(0.06)
            if time.monotonic() - begun_s > 6.0:
                break
        late_s = (time.monotonic() - begun_s) - (seen[-1] - seen[0] + 1) * 0.04
    skipped = seen[-1] - seen[0] + 1 - len(seen)
    assert skipped > 20, "every third tick or so"
    assert all(b - a <= 3 for a, b in pairwise(seen)), "none passes in a bunch"
    assert late_s < 0.5
    assert not any("stood still" in n for n in notices)
    assert pipeline.summary.ticks_skipped >= skipped


def test_build_verify_run_record_and_replay(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = command("build", bundle.path, "--engine", "native")
    assert made.returncode == 0, made.stderr
    assert "fp32: built in" in made.stdout
    assert made.stderr.count("\n") == 1
    again = command("build", bundle.path, "--engine", "native", "--json")
    assert json.loads(again.stdout)["engines"][0]["built"] is False
    assert again.stderr == ""
    refused = command("build", bundle.path, "--engine", "native", "--precision", "int8")
    assert refused.returncode == 1
    assert "the native engine runs fp32 only, not int8" in refused.stderr

    proof = command("verify", bundle.path, "--engine", "native", "--seconds", 0.5, "--rounds", 20, "--json")
    assert proof.returncode == 0, proof.stderr
    report = json.loads(proof.stdout)
    assert (report["engine"], report["chosen"], report["stored"]) == ("native", "fp32", True)
    page = command("verify", bundle.path, "--engine", "native", "--seconds", 0.5, "--rounds", 20)
    assert "from ONNX Runtime" in page.stdout

    run = ["run", bundle.path, "--camera", CLIP, "--mic", CLIP, "--fast", "--no-stt", "--duration", "3"]
    theirs = command(*run, "--json", "--engine", "onnxruntime")
    ours = command(*run, "--json", "--record", tmp_path / "rec")  # verify chose it
    assert ours.returncode == 0, ours.stderr
    pairs = [
        (json.loads(a), json.loads(b)) for a, b in zip(ours.stdout.splitlines(), theirs.stdout.splitlines(), strict=True)
    ]
    assert len(pairs) == 75
    assert max(abs(a["probs"][k] - b["probs"][k]) for a, b in pairs for k in a["probs"]) < 1e-5
    replayed = command("replay", tmp_path / "rec", "--json")
    assert replayed.returncode == 0, replayed.stdout[-500:] + replayed.stderr
    summary = json.loads(replayed.stdout.splitlines()[-1])["summary"]
    assert summary["identical"] == summary["ticks"] == 75
    assert summary["replayed"]["name"] == "native"


def test_a_run_needs_no_onnx_package_once_it_is_built(bundle: Bundle, engine: NativeEngine) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import clcr_edge\n"
        "print(type(clcr_edge.open_engine(sys.argv[1], engine='native')).__name__, 'torch' in sys.modules)"
    )
    ready_step(bundle, None, print)
    done = subprocess.run([sys.executable, "-c", code, bundle.path], capture_output=True, text=True, check=False)
    assert done.stdout == "NativeEngine False\n", done.stderr
    os.environ["XDG_CACHE_HOME"] += "-empty"
    try:
        missing = subprocess.run([sys.executable, "-c", code, bundle.path], capture_output=True, text=True, check=False)
    finally:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"].removesuffix("-empty")
    assert "pip install 'clcr-edge[native]'" in missing.stderr
