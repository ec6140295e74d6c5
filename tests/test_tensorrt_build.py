"""`clcr-edge build`: what fits is left alone, what does not is named and built again, and nothing leaves half an engine."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_rig import DOUBLES, Rig, purge

from clcr_edge import bundle as bundles
from clcr_edge.commands.building import line
from clcr_edge.errors import EngineError
from clcr_edge.export.build_memory import MIB, needed_bytes, shortage
from clcr_edge.export.build_progress import BuildProgress
from clcr_edge.runtime.tensorrt_store import EngineKey, StoredEngine, load_engine, save_engine

CLIP = Path(__file__).resolve().parents[1] / "examples" / "demo.mp4"


@pytest.fixture
def bundle(proof_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(proof_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> Generator[Callable[..., Rig], None, None]:
    yield lambda version="10.3.0": Rig(monkeypatch, bundle, version, None)
    purge()


def command(*arguments: object, **environment: str) -> tuple[list[str], dict[str, str]]:
    env = {**os.environ, "PYTHONPATH": str(DOUBLES), "OPENBLAS_NUM_THREADS": "1", **environment}
    return [sys.executable, "-m", "clcr_edge", *map(str, arguments)], env


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line, env = command(*arguments, **environment)
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=120)


def ready(rig: Rig, **settings: Any) -> tuple[Any, bool, list[str]]:
    from clcr_edge.export.tensorrt_ready import BuildSettings, Teller, TensorRTMachine, ready_engine

    notes: list[str] = []
    stored, built = ready_engine(TensorRTMachine(), rig.bundle, "fp32", BuildSettings(**settings), Teller(notes.append))
    return stored, built, notes


def test_an_engine_that_fits_is_not_built_again(make: Callable[..., Rig]) -> None:
    rig = make()
    first, built, _ = ready(rig)
    assert built
    assert (first.typing, first.key.gpu, first.key.tensorrt) == ("strong", "Orin", "10.3.0")
    assert ready(rig)[1] is False
    again, built, _ = ready(rig, force=True)
    assert built
    assert again.plan != first.plan, "the second build starts from the first one's timings"
    assert again.plan.split(b";")[2] == b"timings.."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "10.16.2"}, "built with TensorRT 10.3.0, found 10.16.2"),
        ({"name": "Thor", "capability": (11, 0)}, "built with GPU Orin, found Thor; compute capability 8.7, found 11.0"),
        ({"multiprocessors": 8}, "built with multiprocessors 16, found 8"),
    ],
)
def test_a_foreign_engine_is_named_and_built_again(make: Callable[..., Rig], change: dict[str, Any], said: str) -> None:
    ready(make())
    rig = make(change.pop("version", "10.3.0"))
    rig.cuda.gpu.update(change)
    stored, built, notes = ready(rig)
    assert built
    assert any(said in n for n in notes), notes
    assert ready(rig)[1] is False
    assert len(list((rig.bundle.path / "tensorrt").glob("*.plan"))) == 1, "the old plan is gone"
    assert stored.plan.startswith(rig.trt.__version__.encode())


def test_an_engine_of_another_graph_is_named() -> None:
    key = EngineKey("Orin", "8.7", 16, "10.3.0", "a" * 64)
    other = EngineKey("Orin", "8.7", 16, "10.3.0", "b" * 64)
    assert key.differences(other) == "built with ONNX aaaaaaaaaaaa, found bbbbbbbbbbbb"
    assert key.differences(key) == ""


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_every_version_builds_and_runs_by_one_path(make: Callable[..., Rig], version: str) -> None:
    rig = make(version)
    stored, _, notes = ready(rig)
    assert stored.typing == "strong"
    assert stored.plan.split(b";")[1] == b"", "no precision flag, and no TF32"
    assert not any("weak" in n for n in notes)
    outputs, _ = rig.engine(stored.plan).step(rig.golden.inputs[0], rig.engine(stored.plan).initial_state())
    np.testing.assert_allclose(outputs.probs, rig.golden.outputs["probs"][0], atol=1e-4)


def test_weak_typing_is_tried_where_it_may_be_needed(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOUBLE_REFUSES", "strong")
    stored, _, notes = ready(make("10.3.0"))
    assert stored.typing == "weak"
    assert any("strong typing failed" in n and "Could not find any implementation for node X." in n for n in notes), notes
    with pytest.raises(EngineError, match=r"TensorRT 10\.13\.3 cannot build the fp32 graph \(.*any implementation"):
        ready(make("10.13.3"))
    assert ready(make("10.3.0"))[1] is False, "the failed build has left the old engine alone"


def test_a_graph_that_tensorrt_refuses_is_named_by_node(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOUBLE_REFUSES", "parse")
    with pytest.raises(EngineError, match=r"cannot read the fp32 graph: node_7 \(Unique\): Unsupported operator"):
        ready(make("11.4.0"))


def test_too_little_memory_is_said_before_the_build(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.cuda.gpu["free"] = 1000 * MIB
    with pytest.raises(EngineError, match=r"fp32: the build needs about 11\d\d MiB and 1000 MiB are free: .*--workspace 64"):
        ready(rig)
    assert ready(rig, workspace_mib=64)[1]
    rig.cuda.gpu["free"] = 100 * MIB
    assert ready(rig, force=True)[1]


def test_the_estimate_grows_with_what_it_is_made_of() -> None:
    assert needed_bytes(10 * MIB, 256) - needed_bytes(0, 256) == 80 * MIB
    assert needed_bytes(0, 512) - needed_bytes(0, 256) == 256 * MIB
    assert shortage(100, 100, 256) == ""
    assert "--workspace" not in shortage(2000 * MIB, 100 * MIB, 256), "a smaller workspace would not help"


@pytest.mark.parametrize("harm", ["truncated", "gone", "record", "schema", "elsewhere"])
def test_a_damaged_engine_is_named_and_built_again(make: Callable[..., Rig], harm: str) -> None:
    rig = make()
    ready(rig)
    folder = rig.bundle.path / "tensorrt"
    plan, record = next(folder.glob("*.plan")), folder / "step.fp32.toml"
    if harm == "truncated":
        plan.write_bytes(plan.read_bytes()[:-1])
    elif harm == "gone":
        plan.unlink()
    elif harm == "record":
        record.write_text("schema = ")
    else:
        old, new = ("schema = 1", "schema = 9") if harm == "schema" else ('plan = "', 'plan = "../')
        record.write_text(record.read_text().replace(old, new))
    _, built, notes = ready(rig)
    assert built
    assert any("step.fp32.toml" in n and "building it again" in n for n in notes), notes
    assert ready(rig)[1] is False


def test_a_stop_between_plan_and_record_keeps_the_old_engine(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clcr_edge.runtime import tensorrt_store

    rig = make()
    stored, _, _ = ready(rig)
    new = StoredEngine(stored.key, "strong", 256, 1.0, b"another plan")
    real = tensorrt_store.write_beside

    def stopped(path: Path, data: bytes) -> None:
        if path.suffix == ".toml":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(tensorrt_store, "write_beside", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_engine(rig.bundle, "fp32", new)
    kept = load_engine(rig.bundle, "fp32")
    assert kept is not None
    assert kept.plan == stored.plan


def whole(bundle: Path) -> bytes:
    """The stored plan, verified; and no scratch file beside it."""
    stored = load_engine(bundles.read(bundle), "fp32")
    assert stored is not None
    return stored.plan


def started(bundle: Path, **environment: str) -> subprocess.Popen[str]:
    """A build that lasts, in its middle."""
    line, env = command("build", bundle, **environment)
    process = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for said in process.stderr:
        if "building needs about" in said:
            time.sleep(0.5)
            return process
    raise AssertionError("the build did not begin")


def test_a_kill_in_the_middle_of_a_build_leaves_the_old_engine(bundle: Path) -> None:
    assert run("build", bundle).returncode == 0
    before = whole(bundle)
    process = started(bundle, DOUBLE_VERSION="10.13.3", DOUBLE_BUILD_S="60")
    process.kill()
    process.communicate()
    assert whole(bundle) == before
    assert run("build", bundle).stdout.count("fits, nothing to do") == 1


def test_ctrl_c_ends_a_build_at_the_next_step_and_leaves_the_old_engine(bundle: Path) -> None:
    assert run("build", bundle).returncode == 0
    before = whole(bundle)
    process = started(bundle, DOUBLE_VERSION="10.13.3", DOUBLE_BUILD_S="20")
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert time.monotonic() - begun < 15, "it waited for the whole build"
    assert whole(bundle) == before


def test_a_disk_without_room_is_one_line_and_leaves_the_old_engine(bundle: Path) -> None:
    assert run("build", bundle).returncode == 0
    before = whole(bundle)
    line, env = command("build", bundle, DOUBLE_VERSION="10.13.3")
    limit = 1 << 20

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, preexec_fn=small_files)
    assert done.returncode == 1
    assert "cannot be written (File too large)" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert whole(bundle) == before
    assert not list((bundle / "tensorrt").glob(".*")), "no scratch file is left"


def test_a_folder_that_cannot_be_written_to_is_said_before_the_build(make: Callable[..., Rig]) -> None:
    rig = make()
    (rig.bundle.path / "tensorrt").write_text("a file in its place")
    with pytest.raises(EngineError, match=r"tensorrt is a file; copy the bundle to a folder that you may write to"):
        ready(rig)
    assert not list((rig.bundle.path).glob("*.plan"))


def test_timings_that_cannot_be_kept_cost_no_engine(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    from clcr_edge.export import tensorrt_ready

    rig = make()
    (rig.bundle.path / "tensorrt").mkdir()

    def full(path: Path, _data: bytes) -> None:
        raise EngineError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(tensorrt_ready, "write_beside", full)
    _, built, notes = ready(rig)
    assert built
    assert any("TensorRT's timings are not kept" in n for n in notes), notes
    assert ready(rig)[1] is False, "the engine was kept"


def test_the_command_reports_as_json_and_refuses_what_is_not_there(bundle: Path) -> None:
    done = run("build", bundle, "--json")
    report = json.loads(done.stdout)
    assert report["engines"][0]["precision"] == "fp32"
    assert report["engines"][0]["built"] is True
    assert report["engines"][0]["key"]["gpu"] == "Orin"
    done = run("build", bundle, "--precision", "int8")
    assert done.returncode == 1
    assert "no int8 graph for TensorRT; this bundle has fp32" in done.stderr
    assert run("build", bundle, "--workspace", "1").returncode == 2


def test_a_terminal_sees_progress_and_time_left(bundle: Path) -> None:
    done = run("build", bundle, DOUBLE_BUILD_S="1.5", FORCE_COLOR="1", COLUMNS="200")
    assert done.returncode == 0
    assert "building fp32:" in done.stderr
    assert " left" in done.stderr
    assert "Tactics" in done.stderr


def shown(progress: BuildProgress) -> tuple[float, float | None]:
    return progress.fraction, progress.left_s


def test_the_time_left_follows_from_nested_phases() -> None:
    now = [0.0]
    progress = BuildProgress(lambda: now[0])
    assert (progress.fraction, progress.left_s) == (0.0, None)
    progress.start("build", None, 4)
    progress.step("build", 0)
    progress.start("tactics", "build", 10)
    now[0] = 30.0
    for step in range(5):
        progress.step("tactics", step)
    assert progress.fraction == pytest.approx((1 + 0.5) / 4)
    assert progress.left_s == pytest.approx(30.0 * 2.5 / 1.5)
    assert line("int8", progress) == "building int8:  38%  0:30, about 0:50 left  tactics"
    progress.finish("tactics")
    assert progress.fraction == pytest.approx(0.375), "it never falls"
    progress.step("unknown", 3)
    progress.finish("build")
    assert progress.fraction == 1.0
    assert progress.left_s == 0.0
    now[0] = 100.0
    progress.start("another", None, 2)
    assert shown(progress) == (0.0, None), "a second outermost phase must not look finished"
    now[0] = 110.0
    progress.step("another", 0)
    assert progress.left_s == pytest.approx(10.0)


def test_run_on_tensorrt_predicts_what_onnx_runtime_predicts(bundle: Path) -> None:
    arguments = ("run", bundle, "--camera", CLIP, "--no-stt", "--fast", "--json", "--duration", "1")
    mine = run(*arguments, "--engine", "tensorrt")
    assert mine.returncode == 0, mine.stderr
    assert "not verified here yet: running fp32" in mine.stderr
    other = run(*arguments, "--engine", "onnxruntime")
    rows = [[json.loads(row) for row in done.stdout.splitlines()] for done in (mine, other)]
    assert len(rows[0]) == len(rows[1]) == 25
    for a, b in zip(*rows, strict=True):
        assert a["label"] == b["label"]
        for name, value in a["probs"].items():
            assert value == pytest.approx(b["probs"][name], abs=1e-5)
