"""The graphs for TensorRT: symmetric Q/DQ, the FP16 twin, what is measured of them, and NVIDIA's own checkers on them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from clcr_edge import bundle as bundles  # noqa: E402
from clcr_edge.calibration.ranges import Range  # noqa: E402
from clcr_edge.calibration.symmetric import quantise_symmetric  # noqa: E402
from clcr_edge.calibration.units import ConvSite, conv_sites  # noqa: E402
from clcr_edge.cli import app  # noqa: E402
from clcr_edge.errors import ExportError, UsageError  # noqa: E402
from clcr_edge.export import pipeline  # noqa: E402
from clcr_edge.export.golden import compare, load_golden  # noqa: E402
from clcr_edge.export.graph import check, without_integer_clip  # noqa: E402
from clcr_edge.export.half import to_half  # noqa: E402
from clcr_edge.export.pipeline import GRAPHS, for_tensorrt  # noqa: E402
from clcr_edge.export.rounded import rounded  # noqa: E402
from clcr_edge.export.rules.check import findings  # noqa: E402
from clcr_edge.packets import Modality  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine, open_graph  # noqa: E402

MEANT = ("fp32", "trt-int8", "trt-fp16")


def small(nodes, inputs, outputs, **arrays):  # type: ignore[no-untyped-def]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, **feed):  # type: ignore[no-untyped-def]
    return open_graph(model.SerializeToString()).run(None, feed)


def types(model):  # type: ignore[no-untyped-def]
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return values | {i.name: i.data_type for i in graph.initializer}


# -- the bundle's graphs ---------------------------------------------------------------------------------------------------


def test_our_float_graph_breaks_no_rule(step_model) -> None:  # type: ignore[no-untyped-def]
    assert findings(step_model) == []


@pytest.mark.parametrize("precision", MEANT)
def test_what_is_meant_for_tensorrt_breaks_no_rule(tiny_bundle: Path, precision: str) -> None:
    model = onnx.load(tiny_bundle / GRAPHS[precision])
    check(model)
    assert findings(model) == []


def test_the_cpu_graph_would_break_them(tiny_bundle: Path) -> None:
    """The checker sees what it must on a whole graph too, and names every convolution's place."""
    found = findings(onnx.load(tiny_bundle / GRAPHS["int8"]))
    assert {f.rule for f in found} >= {"uint8-zero-point", "quantised-bias"}
    sites = {s.unit for s in conv_sites(onnx.load(tiny_bundle / GRAPHS["fp32"]))}
    assert sites <= {f.unit for f in found if f.rule == "quantised-bias"}


def test_check_of_a_bundle_passes_over_the_cpu_graph(tiny_bundle: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(tiny_bundle)])
    assert done.exit_code == 0
    assert set(done.stdout.splitlines()) == {
        "step.fp32.onnx: no finding",
        "step.int8.onnx: cpu graph: not meant for TensorRT",
        "step.trt-int8.onnx: no finding",
        "step.trt-fp16.onnx: no finding",
    }


def test_int8_is_symmetric_and_leaves_bias_and_states_alone(tiny_bundle: Path, step_model) -> None:  # type: ignore[no-untyped-def]
    model = onnx.load(tiny_bundle / GRAPHS["trt-int8"])
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    made = {o: n for n in model.graph.node for o in n.output}
    quantised = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(constants[n.input[2]].dtype == np.int8 and not constants[n.input[2]].any() for n in quantised)
    for site in conv_sites(step_model):
        conv = next(n for n in model.graph.node if n.name == site.node)
        activation, weight, bias = conv.input
        assert constants[made[activation].input[1]].shape == ()
        codes = constants[made[weight].input[0]]
        assert codes.dtype == np.int8
        assert constants[made[weight].input[1]].shape == (len(codes),)
        assert constants[bias].dtype == np.float32
    pairs = {n.output[0] for n in quantised}
    for output in model.graph.output:
        assert not pairs & {output.name, *made[output.name].input}
    assert (tiny_bundle / GRAPHS["trt-int8"]).stat().st_size < (tiny_bundle / GRAPHS["fp32"]).stat().st_size


def test_the_twin_is_half_where_weights_are_and_whole_where_it_matters(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / GRAPHS["trt-fp16"])
    of = types(model)
    edges = [*model.graph.input, *model.graph.output]
    assert all(v.type.tensor_type.elem_type != TensorProto.FLOAT16 for v in edges)
    inputs: dict[str, list[int]] = {n.op_type: [] for n in model.graph.node}
    for n in model.graph.node:
        inputs[n.op_type] += [of[name] for name in n.input if name]
    for kind in ("Conv", "Gemm"):
        assert set(inputs[kind]) == {TensorProto.FLOAT16}
    for kind in ("Softmax", "LayerNormalization", "ReduceMean", "Sqrt", "Div", "Clip", "ReduceMin", "Sigmoid"):
        assert TensorProto.FLOAT16 not in inputs[kind], f"{kind} is to stay fp32"
    whole, half = ((tiny_bundle / GRAPHS[p]).stat().st_size for p in ("fp32", "trt-fp16"))
    assert half < 0.65 * whole


def test_they_run_here_and_are_close_but_are_not_fp32_by_another_name(tiny_bundle: Path) -> None:
    bundle, golden = bundles.read(tiny_bundle), load_golden(tiny_bundle / "golden.npz")
    for precision, least in (("trt-int8", 15), ("trt-fp16", 40)):
        found = compare(OnnxEngine.from_bundle(bundle, precision), golden)
        assert least < found["probs"]["sqnr_db"] < 140


def test_the_report_has_size_parity_and_accuracy_of_each_and_no_guessed_latency(tiny_bundle: Path) -> None:
    report = json.loads((tiny_bundle / "report.json").read_text())
    assert set(report["precisions"]) == set(GRAPHS)
    for precision in ("trt-int8", "trt-fp16"):
        found = report["precisions"][precision]
        assert found["bytes"] > 1e5
        assert set(found["parity"]["probs"]) == {"max_abs", "sqnr_db"}
        assert found["accuracy"]["n_events"] > 0
        assert found["latency"] is None
    assert "measured on the device" in report["tensorrt"]["why"]
    assert set(report["sensitivity"]) == {"int8", "trt-int8"}, "each INT8 names its own guilty units"
    assert all(u["latency_ms"] is None for u in report["sensitivity"]["trt-int8"]["units"]), "never guessed from a CPU"
    manifest = bundles.read(tiny_bundle).manifest
    assert manifest["tensorrt"]["holding"] == report["tensorrt"]["holding"]
    assert manifest["gate"]["max_drop"] == report["gate"]["max_drop"], "verify goes by it on the device"
    assert set(manifest["calibration"]["schemes"]) == {"int8", "trt-int8", "trt-fp16"}
    assert manifest["chosen"]["precision"] in ("fp32", "int8"), "what runs on this CPU is a CPU's graph"


def test_a_bundle_knows_which_graph_is_for_what(tiny_bundle: Path) -> None:
    bundle = bundles.read(tiny_bundle)
    assert set(bundle.graphs_for("cpu")) == {"fp32", "int8"}
    assert set(bundle.graphs_for("tensorrt")) == set(MEANT)


def test_a_graph_that_breaks_a_rule_is_never_handed_over(step_model) -> None:  # type: ignore[no-untyped-def]
    broken = onnx.ModelProto()
    broken.CopyFrom(step_model)
    broken.opset_import[0].version = 21
    with pytest.raises(ExportError, match=r"trt-fp16 graph breaks TensorRT's rules 1 times, first opset"):
        pipeline._hold_to_rules(broken, "trt-fp16")


@pytest.mark.parametrize(
    ("int8", "half", "holding", "said"),
    [
        (0.98, 0.98, ["trt-int8", "trt-fp16"], "trt-int8 keeps the event accuracy"),
        (0.97, 0.98, ["trt-fp16"], "trt-int8 loses 1.00 points"),
        (0.97, 0.976, ["trt-fp16"], "trt-fp16 loses 0.40 points"),
    ],
)
def test_what_holds_accuracy_is_said(int8: float, half: float, holding: list[str], said: str) -> None:
    scores = {"fp32": 0.98, "trt-int8": int8, "trt-fp16": half}
    found = for_tensorrt({p: {"event_accuracy": a, "n_events": 100} for p, a in scores.items()})
    assert found["holding"] == holding
    assert said in found["why"]
    assert for_tensorrt({"fp32": {"event_accuracy": 1.0, "n_events": 1}}) == {}


def test_a_student_that_gets_nothing_right_can_be_exported() -> None:
    """Its time to the first right tick is unknown, which JSON can say and TOML cannot."""
    from clcr_edge import toml_io

    known = pipeline._known({"event_accuracy": 0.0, "time_to_first_correct_s": None})
    assert toml_io.loads(toml_io.dumps({"metrics": known})) == {"metrics": {"event_accuracy": 0.0}}


def test_an_unknown_target_is_a_wrong_call() -> None:
    done = CliRunner().invoke(app, ["export", "--target", "gpu"])
    assert isinstance(done.exception, UsageError)
    assert "choose cpu, tensorrt or both" in str(done.exception)


# -- NVIDIA's own checkers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", MEANT)
@pytest.mark.parametrize("what", ["lint", "sanitize"])
def test_polygraphy_accepts_it(tiny_bundle: Path, tmp_path: Path, precision: str, what: str) -> None:
    for name in ("polygraphy", "onnx_graphsurgeon"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'clcr-edge[dev]'")
    graph, clean = tiny_bundle / GRAPHS[precision], tmp_path / "clean.onnx"
    arguments = {
        "lint": ["check", "lint", str(graph)],
        "sanitize": ["surgeon", "sanitize", str(graph), "--fold-constants", "-o", str(clean)],
    }
    command = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())", *arguments[what]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
    if what == "sanitize":
        folded = onnx.load(clean)
        assert findings(folded) == []
        before = sum(n.op_type == "QuantizeLinear" for n in onnx.load(graph).graph.node)
        assert sum(n.op_type == "QuantizeLinear" for n in folded.graph.node) == before, "folding must not undo Q/DQ"


# -- the three passes, on graphs small enough to reckon by hand --------------------------------------------------------------


def test_symmetric_pairs_round_as_the_arithmetic_says() -> None:
    weight = np.array([[[[2.0]]], [[[-0.5]]]], np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="c"), helper.make_node("Identity", ["x"], ["next_x"])]
    model = small(nodes, {"x": [1, 1, 1, 3]}, {"y": [1, 2, 1, 3], "next_x": [1, 1, 1, 3]}, w=weight, b=np.ones(2, np.float32))
    site = ConvSite("vision.encoder.conv1", Modality.VISION, "c", "x", "y")
    made = quantise_symmetric(model, [site], {"x": Range(-1.0, 2.54)})
    x = np.array([[[[0.011, -1.0, 9.0]]]], np.float32)  # the range is -2.54 .. 2.54, a step 0.02
    y, state = run(made, x=x)
    seen = np.array([0.02, -1.0, 2.54])
    np.testing.assert_allclose(y[0, :, 0], np.stack([2.0 * seen + 1, -0.5 * seen + 1]), atol=1e-5)
    np.testing.assert_array_equal(state, x)


def test_two_convolutions_share_one_pair() -> None:
    nodes = [helper.make_node("Conv", ["x", f"w{i}"], [f"y{i}"], name=f"c{i}") for i in (0, 1)]
    arrays = {f"w{i}": np.ones((1, 1, 1, 1), np.float32) for i in (0, 1)}
    model = small(nodes, {"x": [1, 1, 2, 2]}, {"y0": [1, 1, 2, 2], "y1": [1, 1, 2, 2]}, **arrays)
    sites = [ConvSite(f"u{i}", Modality.VISION, f"c{i}", "x", f"y{i}") for i in (0, 1)]
    made = quantise_symmetric(model, sites, {"x": Range(0.0, 1.27)})
    assert sum(n.op_type == "QuantizeLinear" for n in made.graph.node) == 1
    assert findings(made) == []


def test_half_keeps_names_and_types_at_the_edges_and_casts_once() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("Relu", ["m"], ["y"], name="r"),
        helper.make_node("Softmax", ["y"], ["p"], name="s"),
        helper.make_node("Exp", ["y"], ["e"], name="e"),
        helper.make_node("MatMul", ["x", "w"], ["again"], name="m2"),
    ]
    shapes = {"y": [1, 4], "p": [1, 4], "e": [1, 4], "again": [1, 4]}
    model = small(nodes, {"x": [1, 4]}, shapes, w=np.eye(4, dtype=np.float32) / 3)
    made = to_half(model)
    assert findings(made) == []
    of = types(made)
    assert of["m"] == TensorProto.FLOAT16
    assert all(of[name] == TensorProto.FLOAT for name in ("x", *shapes))
    casts = [n for n in made.graph.node if n.op_type == "Cast"]
    assert len([n for n in casts if n.input[0] == "x"]) == 1
    assert [i.data_type for i in made.graph.initializer] == [TensorProto.FLOAT16]
    for got, wanted in zip(run(made, x=np.ones((1, 4), np.float32)), run(model, x=np.ones((1, 4), np.float32)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_a_weight_beyond_fp16_stays_float() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    model = small(nodes, {"x": [1, 2]}, {"y": [1, 2]}, w=np.full((2, 2), 1e5, np.float32))
    assert run(to_half(model), x=np.ones((1, 2), np.float32))[0][0, 0] == pytest.approx(2e5)


def test_rounded_rounds_where_onnx_runtime_leaves_fp16_out() -> None:
    """x * 1000 in FP16: both factors and the product are rounded."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("Relu", ["m"], ["r"], name="r"),
        helper.make_node("Exp", ["tiny"], ["t"], name="t"),
        helper.make_node("Mul", ["r", "t"], ["y"], name="y"),
    ]
    w = np.eye(2, dtype=np.float32) * 1000
    model = small(nodes, {"x": [1, 2], "tiny": [1]}, {"y": [1, 2]}, w=w)
    x = np.array([[1.2345678, 2.3456789]], np.float32)
    half = to_half(model)
    (found,) = run(rounded(half), x=x, tiny=np.zeros(1, np.float32))
    np.testing.assert_array_equal(found, (x.astype(np.float16) * np.float16(1000)).astype(np.float32))
    assert TensorProto.FLOAT16 not in {i.data_type for i in rounded(half).graph.initializer}


@pytest.mark.parametrize(("bounds", "kinds"), [((1, None), ["Max"]), ((None, 3), ["Min"]), ((1, 3), ["Max", "Min"]), ((), [])])
def test_a_clip_of_whole_numbers_becomes_max_and_min(bounds, kinds) -> None:  # type: ignore[no-untyped-def]
    names = ["" if b is None else f"b{i}" for i, b in enumerate(bounds)]
    arrays = {f"b{i}": np.array(b, np.int64) for i, b in enumerate(bounds) if b is not None}
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Clip", ["i", *names], ["c"], name="clip"),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Clip", ["x"], ["z"], name="float"),
    ]
    model = small(nodes, {"x": [5]}, {"y": [5], "z": [5]}, **arrays)
    x = np.arange(5, dtype=np.float32)
    wanted = run(model, x=x)
    without_integer_clip(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node][1:-2] == (kinds or ["Identity"])
    assert model.graph.node[-1].op_type == "Clip"
    for before, after in zip(wanted, run(model, x=x), strict=True):
        np.testing.assert_array_equal(before, after)
