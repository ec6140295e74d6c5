"""Fake quantisation is what the INT8 graph computes, bit for bit; a student that learned in it is an ordinary checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from typer.testing import CliRunner  # noqa: E402

from clcr_edge.calibration.qdq import quantise  # noqa: E402
from clcr_edge.calibration.ranges import Range  # noqa: E402
from clcr_edge.calibration.sets import CalibrationSet, own_sets  # noqa: E402
from clcr_edge.cli import app  # noqa: E402
from clcr_edge.data.seen import FILE, Seen  # noqa: E402
from clcr_edge.errors import ClcrEdgeError, UsageError  # noqa: E402
from clcr_edge.export.quantised import Quantised, calibrated  # noqa: E402
from clcr_edge.model.hierarchy import FrameEncoder  # noqa: E402
from clcr_edge.packets import Modality  # noqa: E402
from clcr_edge.train.checkpoint import load_student, save_student  # noqa: E402
from clcr_edge.train.digits import Recipe  # noqa: E402
from clcr_edge.train.fake_quant import FakeConvs, Int8Student, fake_activation, fake_weight, weight_scale  # noqa: E402
from clcr_edge.train.int8_lesson import distil_int8  # noqa: E402
from clcr_edge.train.settings import DistilConfig  # noqa: E402

SHORT = Recipe(steps=3, streams=2, seconds=4.0, predict=10, lr=2e-4)


def by_onnxruntime(x, scale, zero, axis: int | None = None):  # type: ignore[no-untyped-def]
    """QuantizeLinear and DequantizeLinear, as they are written."""
    extra: dict[str, Any] = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **extra),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **extra),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return plainly(model).run(None, {"x": x})[0]


def plainly(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("found", [Range(-1.3, 2.9), Range(0.0, 7.77), Range(-1e-6, 1e-6), Range(-40.0, 0.0)])
def test_activations_are_onnx_bit_for_bit(found: Range) -> None:
    rng = np.random.default_rng(0)
    halves = (np.arange(-300, 300) + 0.5) * np.float32(found.scale)  # ties, and both ends saturated
    wide = rng.standard_normal(4_000) * (found.high - found.low)
    x = np.concatenate([halves, wide, [0.0, -0.0, 1e30, -1e30]]).astype(np.float32)
    wanted = by_onnxruntime(x, np.array(found.scale, np.float32), np.array(found.zero_point, np.uint8))
    assert np.array_equal(fake_activation(torch.from_numpy(x), found).numpy(), wanted)
    assert len(np.unique(wanted)) > 100


def test_weights_are_onnx_bit_for_bit() -> None:
    weight = np.random.default_rng(1).standard_normal((6, 5, 3, 3)).astype(np.float32)
    weight *= np.array([1, 1e-3, 30, 1, 0, 1], np.float32)[:, None, None, None]  # one channel of nothing
    scale = weight_scale(torch.from_numpy(weight)).numpy()
    wanted = by_onnxruntime(weight, scale, np.zeros(6, np.int8), axis=0)
    assert np.array_equal(fake_weight(torch.from_numpy(weight)).numpy(), wanted)


def test_gradients_pass_the_rounding_and_stop_where_it_saturates() -> None:
    x = torch.tensor([-2.0, -0.5, 0.013, 0.7, 3.0], requires_grad=True)
    torch.autograd.backward(fake_activation(x, Range(-1.0, 1.0)).sum())
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    weight = torch.randn(3, 2, 3, 3, requires_grad=True)
    torch.autograd.backward((fake_weight(weight) * 2.0).sum())
    assert weight.grad is not None
    assert (weight.grad == 2.0).all(), "the largest weight of a channel learns too"


@pytest.fixture(scope="module")
def calibration() -> CalibrationSet:
    return own_sets(calibration_streams=1)[0]


@pytest.fixture(scope="module")
def found(student, step_model: onnx.ModelProto, calibration: CalibrationSet) -> Quantised:  # type: ignore[no-untyped-def]
    return calibrated(step_model, student.config, calibration, ["int8"], (), 0, False, lambda *_: None)


def test_the_encoders_are_those_of_the_exported_graph(student, step_model: onnx.ModelProto, found: Quantised) -> None:  # type: ignore[no-untyped-def]
    graph = quantise(step_model, found.sites, found.ranges["int8"])
    last = {m: [s for s in found.sites if s.modality is m][-1].result for m in (Modality.VISION, Modality.AUDIO)}
    names = [f"{name}.dq" for name in last.values()]
    rng = np.random.default_rng(3)

    def draw(name: str) -> Any:
        return rng.standard_normal(feed[name].shape, np.float32)

    graph.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    session, config = plainly(graph), student.config
    feed = {i.name: np.zeros(i.shape, np.int32 if "int32" in i.type else np.float32) for i in session.get_inputs()}
    feed |= {"frame": np.abs(draw("frame")) / 4, "fbank": draw("fbank"), "past_fbank": draw("past_fbank")}
    feed["present"][:] = 1.0
    wanted = session.run(names, feed)

    fake = Int8Student(copy.deepcopy(student), found.sites, found.ranges["int8"]).eval().student
    heard = torch.from_numpy(np.concatenate([feed["past_fbank"], feed["fbank"]]))[None, None]
    with torch.no_grad():
        seen = fake.frame_encoder.body(FrameEncoder.standardise(torch.from_numpy(feed["frame"])))
        made = [seen.numpy(), fake.sound_encoder.body(heard).numpy()]
        in_float = student.frame_encoder.body(FrameEncoder.standardise(torch.from_numpy(feed["frame"]))).numpy()
    for value, graphs, name in zip(made, wanted, last.values(), strict=True):
        step = found.ranges["int8"][name].scale
        steps = np.abs(value - graphs) / step
        # Sums in another order move a value across the edge of a step now and then.
        assert steps.max() <= 2.001
        assert (steps > 0.5).mean() < 0.02
        assert value.shape == graphs.shape
        assert config.model.width == fake.config.model.width
    assert np.abs(in_float - wanted[0]).mean() > 10 * np.abs(made[0] - wanted[0]).mean()


def test_a_wrong_number_of_ranges_is_refused(student) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="one range for each"):
        FakeConvs(list(student.frame_encoder.body), Range(0.0, 1.0), [Range(0.0, 1.0)])


def test_what_learned_comes_back_as_an_ordinary_student(student, found: Quantised) -> None:  # type: ignore[no-untyped-def]
    before = {k: v.clone() for k, v in student.state_dict().items()}
    model = Int8Student(copy.deepcopy(student), found.sites, found.ranges["int8"])
    model.train()
    frames = torch.rand(4, 1, 96, 96)
    model.student.frame_encoder(frames).square().mean().backward()
    model.student.sound_encoder(torch.randn(2, student.config.model.audio_context + 8, 40)).square().mean().backward()
    learned = [k for k, p in model.named_parameters() if "encoder" in k and "word" not in k and p.grad is not None]
    assert len(learned) == sum("frame_encoder" in k or "sound_encoder" in k for k, _ in student.named_parameters())
    after = model.plain().state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before), "batch norms have kept their statistics"


@pytest.mark.slow
def test_a_short_lesson_is_resumed_and_gives_an_ordinary_checkpoint(  # type: ignore[no-untyped-def]
    student, shared_data: Path, tmp_path: Path, calibration: CalibrationSet
) -> None:
    source, out = tmp_path / "fp32", tmp_path / "int8"
    save_student(source, student.state_dict(), student.config, {"seed": 5, "left_out": "george"})

    def taught(seed: int) -> dict[str, Any]:
        return distil_int8(source, shared_data, out, seed, DistilConfig(), SHORT, calibration)

    (out / "student.toml").mkdir(parents=True)  # stops the run where it writes its checkpoint
    with pytest.raises(OSError, match=r"student\.toml"):
        taught(0)
    (out / "student.toml").rmdir()
    with pytest.raises(ClcrEdgeError, match="another seed, data or configuration"):
        taught(1)
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    summary = taught(0)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == steps, "what was learned is not learned again"
    assert 0.0 <= summary["last"]["agreement"] <= 1.0
    made, provenance = load_student(out)
    assert provenance["seed"] == 5
    assert provenance["distilled_int8"]["recipe"]["steps"] == SHORT.steps
    assert "george" not in Seen.load(out / FILE).speakers
    assert not list(out.glob("*resume*"))
    before, after = student.state_dict(), made.state_dict()
    assert 0 < (after["frame_encoder.body.0.weight"] - before["frame_encoder.body.0.weight"]).abs().max() < 0.01
    assert torch.equal(after["frame_encoder.body.1.running_var"], before["frame_encoder.body.1.running_var"])


def test_wrong_calls(tmp_path: Path) -> None:
    base = ["distill", str(tmp_path), "--root", str(tmp_path), "--out", str(tmp_path / "o"), "--int8"]
    for data, said in (("crema-d", "--int8 is for digits"), ("digits", "holds no student")):
        result = CliRunner().invoke(app, [*base, "--data", data])
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)
