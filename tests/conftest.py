"""Fixtures: a student with random weights, the bundle made of it, and where shared data would lie."""

from __future__ import annotations

import os

# Before numpy and torch load: threads that wait for each other by spinning make a busy two-core machine ten times slower.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clcr_edge.train.memory import keep_memory

if TYPE_CHECKING:
    from live_rig import CameraServer, SoundServer

keep_memory()

# A suite started in the background (nohup, a shell's &) ignores SIGINT, and so would every command that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips where there is none."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("../shared/data is not here: this test needs real recordings")
    return data


def random_student(seed: int = 0):  # type: ignore[no-untyped-def]
    """A student in eval mode whose every part matters: random statistics, budgets that bind, lags, gates."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
    from clcr_edge.model.student import Student
    from clcr_edge.train.digits import student_config

    torch.manual_seed(seed)
    student = Student(student_config()).eval()
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.3, 1.5)
                if module.affine:
                    module.weight.uniform_(0.7, 1.4)
                    module.bias.normal_(0.0, 0.3)
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.3)
        student.intra_ced.theta.uniform_(3.0, 8.0)
        student.intra_ced.budget.uniform_(-1.0, 1.0)
        student.intra_ced.lag.normal_(0.0, 0.3)
        student.inter_cad.gate.normal_()
        student.inter_cad.head[3].weight.mul_(6.0)
        student.inter_cad.level_score[2].weight.mul_(8.0)
        student.inter_cad.context.weight.mul_(4.0)
        student.operating_bias.together.normal_()
        student.operating_bias.alone.normal_()
    return student


@pytest.fixture(scope="session")
def student():  # type: ignore[no-untyped-def]
    """One random student for all tests. Do not change it."""
    return random_student()


@pytest.fixture(scope="session")
def step_model(student):  # type: ignore[no-untyped-def]
    """Its ONNX step graph, fp32."""
    from clcr_edge.export.graph import export_step

    return export_step(student)


@pytest.fixture(scope="session")
def tiny_bundle(student, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A bundle of the random student for both targets, exported as the command does, on very little data."""
    from clcr_edge.calibration import sets
    from clcr_edge.export.gate import Gate
    from clcr_edge.export.pipeline import export_bundle
    from clcr_edge.train.checkpoint import save_student

    root = tmp_path_factory.mktemp("bundle")
    save_student(root / "checkpoint", student.state_dict(), student.config, {"seed": 0})
    calibration, checks = sets.own_sets(calibration_streams=2, check_streams=2)
    bundle, _ = export_bundle(
        root / "checkpoint", root / "bundle", True, calibration, checks, lambda *_: None, "both", Gate(100.0), 50
    )  # a student that has learnt nothing has no accuracy to hold
    return bundle.path


@pytest.fixture(scope="session")
def proof_bundle(student, step_model, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A bundle of fp32 and golden vectors only, for what needs no calibration: a fraction of the time of `tiny_bundle`.

    Its ticks are random, with devices and words that come and go. Do not write into it: copy it.
    """
    import numpy as np
    import onnx

    from clcr_edge import bundle as bundles
    from clcr_edge.export.golden import make_golden, save_golden
    from clcr_edge.runtime.engine import StepInputs

    t, strides, rng = student.config.tick, student.config.model.strides, np.random.default_rng(7)
    ticks = []
    for index in range(24):
        words, present = index % 3 if index % 5 == 0 else 0, np.array([index % 7 != 3, index % 6 != 4], np.float32)
        n_new = np.array([[words, *(2 * [(index + 1) % stride == 0])] for stride in strides], np.int32)
        ngrams = np.zeros((t.words_per_tick, t.ngrams_per_word), np.int32)
        ngrams[:words, :5] = rng.integers(1, t.ngram_buckets, (words, 5))
        ticks.append(
            StepInputs(
                frame=rng.random((1, 1, t.image_size, t.image_size), np.float32),
                fbank=rng.standard_normal((t.fbank_frames, t.n_mels)).astype(np.float32),
                ngrams=ngrams,
                confidence=rng.random(t.words_per_tick, np.float32),
                word_age=np.zeros(t.words_per_tick, np.float32),
                present=present,
                n_new=n_new,
            )
        )

    def fill(folder: Path) -> dict[str, object]:
        onnx.save(step_model, folder / "step.fp32.onnx")
        save_golden(make_golden(student, ticks), folder / "golden.npz")
        return {"chosen": {"precision": "fp32", "why": "only fp32"}}

    target = tmp_path_factory.mktemp("proof") / "bundle"
    return bundles.write(target, student.config, {"fp32": "step.fp32.onnx"}, fill).path


@pytest.fixture(scope="module")
def sound() -> Iterator[SoundServer]:
    """A sound server whose microphone hears what is played into it."""
    from live_rig import sound_server

    with sound_server() as server:
        yield server


@pytest.fixture
def camera() -> Iterator[CameraServer]:
    """A network camera at 30 frames a second."""
    from live_rig import camera_server

    with camera_server() as server:
        yield server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Real devices in real time are at the mercy of what else a machine does: a test of them may be run again, in the open.

    Two times at most. A fault of ours fails three times running; the summary names every test that was run again, and why.
    """
    for item in items if config.pluginmanager.hasplugin("rerunfailures") else ():
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The gate (.ci/run) installs all that a test may need: a skip there is a failure, but for data that is not ours."""
    report = yield
    if report.skipped and "system" in os.environ.get("CLCR_EDGE_REQUIRE", "") and "shared" not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped, although the gate installs all it needs: {report.longrepr}"
    return report
