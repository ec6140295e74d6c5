"""`clcr-edge verify`: what does not hold is not chosen, what is chosen is stored, and `run` follows it only where it holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_rig import DOUBLES

from clcr_edge import bundle as bundles
from clcr_edge.bundle import Bundle
from clcr_edge.commands.engines import onnxruntime_line, open_engine
from clcr_edge.errors import BundleError
from clcr_edge.export.verify import TOLERANCES, at_pace, check_accuracy, choose, lost_at_export, tolerance_of
from clcr_edge.runtime.device_record import Verified, manifest_hash, read_verified, write_verified
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.golden import load_golden
from clcr_edge.runtime.onnx_engine import OnnxEngine


@pytest.fixture
def bundle(proof_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(proof_bundle, tmp_path / "bundle")
    return bundles.read(tmp_path / "bundle")


class Wrong:
    """An engine with an error of ours in its probs."""

    def __init__(self, engine: OnnxEngine, error: Any) -> None:
        self.config, self.precision = engine.config, engine.precision
        self._engine, self._error = engine, error

    def initial_state(self) -> State:
        return self._engine.initial_state()

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        outputs, new = self._engine.step(inputs, state)
        return replace(outputs, probs=self._error(outputs.probs)), new


def surer(probs: Any) -> Any:
    odds = np.exp(300.0 * (probs - probs.max(axis=-1, keepdims=True)))
    return (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("error", "precision", "said"),
    [
        (lambda p: p, "fp32", ""),
        (lambda p: p + np.float32(2e-3), "fp32", "probs is off by 2.0e-03, more than 1e-03"),
        (lambda p: p + np.float32(2e-3), "fp16", ""),
        (lambda p: np.roll(p, 1), "int8", "the label agrees"),
        (lambda p: p * np.float32(0.5), "int8", "dB, fewer than 20"),
        (lambda p: p * np.float32(np.nan), "int8", "off by inf"),
    ],
)
def test_an_engine_is_held_to_the_tolerance_of_its_precision(bundle: Bundle, error: Any, precision: str, said: str) -> None:
    golden = load_golden(bundle.path / "golden.npz")
    # A random student is never sure of anything, so its labels would not count: both sides are made surer alike.
    golden = replace(golden, outputs=golden.outputs | {"probs": surer(golden.outputs["probs"])})
    engine = Wrong(OnnxEngine.from_bundle(bundle), lambda p: error(surer(p)))
    found = check_accuracy(engine, golden, tolerance_of(precision))
    assert found["holds"] == (said == ""), found["reason"]
    assert said in found["reason"]
    assert found["clear_ticks"] > 0, "the label agreement must be about something"


def test_the_tolerance_of_a_target_is_that_of_its_precision() -> None:
    assert tolerance_of("trt-int8") is TOLERANCES["int8"]
    assert tolerance_of("something new") is TOLERANCES["fp32"], "what is not known is held to the strictest"


@pytest.mark.parametrize(
    ("held", "times", "chosen", "said"),
    [
        ({"fp32": True, "int8": True}, {"fp32": 2.0, "int8": 1.0}, "int8", "the fastest that holds (fp32 2.00 ms)"),
        ({"fp32": True, "int8": True}, {"fp32": 1.0, "int8": 2.0}, "fp32", "the fastest that holds (int8 2.00 ms)"),
        ({"fp32": True, "int8": False}, {"fp32": 2.0, "int8": 1.0}, "fp32", "int8 does not hold: too far"),
        ({"fp32": True, "int8": False}, {"fp32": 2.0, "int8": 1.0}, "fp32", "and is the only one that holds"),
        ({"int8": True}, {"int8": 1.0}, "int8", "and is the only one that was measured"),
        ({"fp32": False, "int8": False}, {"fp32": 2.0, "int8": 1.0}, None, "fp32 does not hold: too far; int8 does not"),
    ],
)
def test_the_fastest_that_holds_is_chosen(held: Any, times: Any, chosen: str | None, said: str) -> None:
    accuracy = {p: {"holds": h, "reason": "too far"} for p, h in held.items()}
    found, why = choose(accuracy, {p: {"p50_ms": t} for p, t in times.items()})
    assert found == chosen
    assert said in why


def test_the_pace_waits_for_the_stream_and_measures_the_step_alone(bundle: Bundle) -> None:
    now = [100.0]
    slept: list[float] = []
    engine, golden = OnnxEngine.from_bundle(bundle), load_golden(bundle.path / "golden.npz")

    class Slow(Wrong):
        def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
            now[0] += 0.010
            return super().step(inputs, state)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    found = at_pace(Slow(engine, lambda p: p), golden.inputs, 25.0, 4, clock=lambda: now[0], sleep=sleep)
    assert found == {"n": 4, "p50_ms": 10.0, "p90_ms": 10.0, "p99_ms": 10.0}
    assert slept == pytest.approx([0.04, 0.03, 0.03, 0.03])


def verify(bundle: Bundle, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom clcr_edge.cli import main\nmain()"
    line = [sys.executable, "-c", code, "verify", str(bundle.path), "--seconds", "0.4", "--rounds", "20", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_the_page_and_the_choice_need_no_torch_and_no_onnx(bundle: Bundle) -> None:
    done = verify(bundle, before="sys.modules['torch'] = sys.modules['onnx'] = None")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert max(map(len, page.splitlines())) <= 120
    assert f"manifest {manifest_hash(bundle)[:12]}" in page
    assert "24 ticks" in page
    assert "p50     p90     p99     n" in page
    assert "chosen: fp32: " in page
    record = read_verified(bundle)["onnxruntime"]
    assert (record.precision, record.machine) == ("fp32", onnxruntime_line())
    assert bundles.read(bundle.path).precisions == ("fp32",), "the bundle is as whole as before"


def test_json_holds_the_numbers_and_where_they_come_from(bundle: Bundle) -> None:
    report = json.loads(verify(bundle, "--json").stdout)
    found = report["precisions"]["fp32"]
    assert found["back_to_back"]["n"] == 20
    assert found["at_pace"]["n"] == 10
    assert 0 < found["at_pace"]["p50_ms"] <= found["at_pace"]["p99_ms"]
    assert found["accuracy"]["outputs"]["probs"]["max_abs"] < 1e-4
    assert report["stored"] is True
    assert report["machine"]["python"]


def test_golden_vectors_that_do_not_hold_are_an_error_and_take_the_choice_back(bundle: Bundle) -> None:
    assert verify(bundle).returncode == 0
    wrong = (
        "import clcr_edge.runtime.onnx_engine as m, numpy as np\n"
        "real = m.OnnxEngine.step\n"
        "def step(self, inputs, state):\n"
        "    outputs, new = real(self, inputs, state)\n"
        "    return type(outputs)(**{**vars(outputs), 'probs': outputs.probs[::-1]}), new\n"
        "m.OnnxEngine.step = step"
    )
    done = verify(bundle, before=wrong)
    assert done.returncode == 1
    assert "no precision holds on onnxruntime: fp32 does not hold" in done.stderr
    assert "NO" in done.stdout
    assert read_verified(bundle) == {}


def test_a_folder_that_cannot_be_written_to_still_gives_the_page(bundle: Bundle) -> None:
    (bundle.path / "device.toml").mkdir()
    done = verify(bundle)
    assert done.returncode == 0
    assert "chosen: fp32" in done.stdout
    assert "the choice is not stored" in done.stderr


def test_without_tensorrt_it_says_what_to_do(bundle: Bundle) -> None:
    done = verify(bundle, "--engine", "tensorrt", before="sys.modules['tensorrt'] = None")
    assert done.returncode == 1
    assert done.stderr.startswith("clcr-edge: TensorRT is not installed for")
    assert done.stderr.count("\n") == 1


def test_tensorrt_is_built_verified_stored_and_then_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES))
    done = verify(bundle, "--engine", "tensorrt")
    assert done.returncode == 0, done.stderr
    assert "engine   tensorrt: Orin (8.7, 16 multiprocessors), TensorRT 10.3.0" in done.stdout
    assert "no CUDA graph" in done.stdout, "the double has no driver"
    assert "strong typing, built in" in done.stdout
    record = read_verified(bundle)["tensorrt"]
    assert record.precision == "fp32"
    # An hour later, without being asked for by name; and when the GPU's parts have gone.
    code = (
        "import sys\nfrom clcr_edge.bundle import read\nfrom clcr_edge.commands.engines import open_engine\n"
        "print(type(open_engine(read(sys.argv[1]), None, None, print)).__name__)"
    )
    followed = subprocess.run([sys.executable, "-c", code, str(bundle.path)], capture_output=True, text=True, check=False)
    assert followed.stdout == "TensorRTEngine\n", followed.stderr
    monkeypatch.delenv("PYTHONPATH")
    alone = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['tensorrt'] = None\n{code}", str(bundle.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.stdout.startswith("going on with ONNX Runtime: TensorRT is not installed")
    assert alone.stdout.endswith("OnnxEngine\n")


@pytest.mark.parametrize(
    "content", [b"\x00\xff garbage", b"schema = [", b"schema = 99\n[verified]", b"schema = 1\nverified = 3"]
)
def test_a_record_that_cannot_be_read_is_told_and_not_followed(bundle: Bundle, content: bytes) -> None:
    (bundle.path / "device.toml").write_bytes(content)
    told: list[str] = []
    assert open_engine(bundle, None, None, told.append).precision == "fp32"
    assert len(told) == 1
    assert "device.toml: not readable (" in told[0]
    assert "\n" not in told[0]
    (bundle.path / "device.toml").unlink()
    open_engine(bundle, None, None, told.append)
    assert len(told) == 1, "no record is nothing to tell"


def test_what_the_export_found_too_inaccurate_is_not_chosen(bundle: Bundle, tmp_path: Path) -> None:
    def fill(folder: Path) -> dict[str, object]:
        for name in ("step.fp32.onnx", "step.int8.onnx", "step.trt-fp16.onnx"):
            shutil.copy(bundle.path / "step.fp32.onnx", folder / name)
        shutil.copy(bundle.path / "golden.npz", folder / "golden.npz")
        metrics = {"fp32": {"event_accuracy": 0.98}, "int8": {"event_accuracy": 0.974}, "trt-fp16": {"event_accuracy": 0.976}}
        return {"chosen": bundle.manifest["chosen"], "metrics": metrics}

    graphs = {"fp32": "step.fp32.onnx", "int8": "step.int8.onnx", "trt-fp16": "step.trt-fp16.onnx"}
    both = bundles.write(tmp_path / "both", bundle.config, graphs, fill)
    report = json.loads(verify(both, "--json").stdout)
    assert list(report["precisions"]) == ["fp32", "int8"], "a graph for TensorRT is not verified on the CPU"
    assert report["chosen"] == "fp32"
    assert "int8 does not hold: it loses 0.60 points of event accuracy" in report["why"]
    assert lost_at_export(both.manifest, "trt-fp16") == ""
    assert lost_at_export({}, "int8") == ""


@pytest.mark.parametrize(
    ("max_drop", "said"), [(1.0, ""), (0.2, "it loses 0.60 points .*, more than 0.2$"), (None, "more than 0.5$")]
)
def test_the_points_that_may_be_lost_are_those_of_the_bundles_own_gate(max_drop: float | None, said: str) -> None:
    manifest: dict[str, Any] = {"metrics": {"fp32": {"event_accuracy": 0.98}, "trt-fp16": {"event_accuracy": 0.974}}}
    if max_drop is not None:
        manifest["gate"] = {"max_drop": max_drop}
    found = lost_at_export(manifest, "trt-fp16")
    assert re.search(said, found) if said else found == ""


@pytest.mark.parametrize(
    "manifest",
    [
        {"metrics": 7},
        {"metrics": {"fp32": 7}},
        {"metrics": {"fp32": {"event_accuracy": []}, "int8": {"event_accuracy": 1.0}}},
        {"metrics": {"fp32": {"event_accuracy": 1.0}, "int8": {"event_accuracy": "x"}}},
        {"metrics": {"fp32": {"event_accuracy": 1.0}, "int8": {"event_accuracy": 1.0}}, "gate": 7},
    ],
)
def test_measurements_that_are_no_numbers_are_one_line(manifest: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"is not what an export writes .*; export again"):
        lost_at_export(manifest, "int8")


def test_a_precision_that_cannot_be_built_is_left_out_and_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path) -> dict[str, object]:
        for name in ("step.fp32.onnx", "golden.npz"):
            shutil.copy(bundle.path / name, folder / name)
        (folder / "step.trt-int8.onnx").write_bytes(b"no ONNX at all")
        return {"chosen": bundle.manifest["chosen"]}

    graphs = {"fp32": "step.fp32.onnx", "trt-int8": "step.trt-int8.onnx"}
    both = bundles.write(tmp_path / "both", bundle.config, graphs, fill)
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES))
    done = verify(both, "--engine", "tensorrt")
    assert done.returncode == 0, done.stderr
    assert "int8 is left out: TensorRT 10.3.0 cannot read the int8 graph" in done.stderr
    assert "chosen: fp32" in done.stdout
    assert "int8      TensorRT 10.3.0 cannot read the int8 graph" in done.stdout
    asked = verify(both, "--engine", "tensorrt", "--precision", "int8")
    assert asked.returncode == 1
    assert asked.stdout == ""


def test_a_choice_holds_for_its_bundle_and_machine_alone(bundle: Bundle, tmp_path: Path) -> None:
    choice = Verified("onnxruntime", "int8", "because", 1.0, "another machine", manifest_hash(bundle))
    write_verified(bundle, choice)
    assert read_verified(bundle) == {"onnxruntime": choice}
    assert open_engine(bundle, None, None, print).precision == "fp32", "chosen on another machine"
    write_verified(bundle, replace(choice, machine=onnxruntime_line()))
    with pytest.raises(BundleError, match="no int8 graph"):
        open_engine(bundle, None, None, print)
    manifest = bundle.path / "manifest.toml"
    manifest.write_text(manifest.read_text() + "\n# exported again\n")
    assert read_verified(bundle) == {}, "it was about another export"
    (bundle.path / "device.toml").write_text("verified = 3")
    assert read_verified(bundle) == {}


def test_a_numpy_number_is_written_as_toml(bundle: Bundle) -> None:
    choice = Verified("onnxruntime", "fp32", "because", np.float64(1.5), "here", manifest_hash(bundle))
    write_verified(bundle, choice)
    assert read_verified(bundle)["onnxruntime"].p50_ms == 1.5


def test_a_bundle_without_golden_vectors_says_so(bundle: Bundle) -> None:
    (bundle.path / "golden.npz").write_bytes(b"PK")
    with pytest.raises(BundleError, match="not readable as golden vectors"):
        load_golden(bundle.path / "golden.npz")
