"""From a student to a bundle: the graph's rules, parity, golden vectors, INT8 placement, the choice, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from onnx import TensorProto, helper  # noqa: E402

from clcr_edge import bundle as bundles  # noqa: E402
from clcr_edge.calibration.ranges import Range, RangeObserver  # noqa: E402
from clcr_edge.calibration.units import conv_sites  # noqa: E402
from clcr_edge.errors import BundleError, ExportError  # noqa: E402
from clcr_edge.export.golden import compare, load_golden  # noqa: E402
from clcr_edge.export.graph import check  # noqa: E402
from clcr_edge.export.latency import percentiles  # noqa: E402
from clcr_edge.export.pipeline import GRAPHS, choose  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402


def test_the_graph_is_static_small_and_free_of_paths(step_model) -> None:  # type: ignore[no-untyped-def]
    check(step_model)
    assert len(step_model.graph.node) < 500
    assert b"/" + b"site-packages" not in step_model.SerializeToString()
    assert b".py" not in step_model.SerializeToString()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("NonZero", ["x"], ["y"]), "NonZero"),
        (helper.make_node("CumSum", ["x", "axis"], ["y"]), "CumSum"),
    ],
)
def test_a_banned_node_is_named(node, said: str) -> None:  # type: ignore[no-untyped-def]
    kind = TensorProto.INT64 if said == "NonZero" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", kind, [1, 4] if said == "NonZero" else [4])],
        [helper.make_tensor("axis", TensorProto.INT64, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ExportError, match=said):
        check(model)


@pytest.mark.parametrize(
    ("opset", "shape", "kind", "said"), [(17, [4], 1, "opset 17"), (20, ["n"], 1, "dynamic"), (20, [4], 11, "64")]
)
def test_opset_dynamic_shapes_and_doubles_are_refused(opset, shape, kind, said) -> None:  # type: ignore[no-untyped-def]
    values = [helper.make_tensor_value_info(n, kind, shape) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    with pytest.raises(ExportError, match=said):
        check(model)


class TestRanges:
    def test_a_distant_outlier_is_clipped_but_plain_data_is_not(self) -> None:
        rng = np.random.default_rng(0)
        plain, odd = RangeObserver(), RangeObserver()
        values = np.abs(rng.standard_normal(1_000_000)).astype(np.float32)
        plain.see(values)
        odd.see(values)
        odd.see(np.array([60.0], np.float32))
        assert plain.best().high > 3.5
        assert odd.best().high < 40.0
        assert plain.best().low == 0.0

    def test_it_does_not_matter_in_what_order_values_come(self) -> None:
        values = np.random.default_rng(1).normal(0, 3, 4_096).astype(np.float32)
        one, two = RangeObserver(), RangeObserver()
        one.see(values)
        for part in np.split(np.sort(np.abs(values)) * np.sign(values[np.argsort(np.abs(values))]), 64):
            two.see(part)
        assert one.best().high == pytest.approx(two.best().high, rel=0.05)

    def test_zero_is_exact(self) -> None:
        r = Range(-1.3, 2.7)
        assert abs((0 - r.zero_point) * r.scale - r.low) < r.scale

    def test_nan_is_refused(self) -> None:
        with pytest.raises(ValueError, match="NaN"):
            RangeObserver().see(np.array([np.nan], np.float32))


def test_int8_wraps_the_convolutions_and_no_state(tiny_bundle: Path, step_model) -> None:  # type: ignore[no-untyped-def]
    model = onnx.load(tiny_bundle / GRAPHS["int8"])
    sites = conv_sites(step_model)
    count = len(bundles.read(tiny_bundle).config.model.vision_channels)
    assert [s.unit for s in sites] == [f"vision.encoder.conv{i + 1}" for i in range(count)] + [
        f"audio.encoder.conv{i}" for i in range(1, 5)
    ]
    weights = {i.name: i for i in model.graph.initializer}
    made = {o: n for n in model.graph.node for o in n.output}
    for site in sites:
        conv = next(n for n in model.graph.node if n.name == site.node)
        kinds = [weights[made[name].input[2]].data_type for name in conv.input]
        assert kinds == [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32]
    for output in model.graph.output:
        assert made[output.name].op_type != "DequantizeLinear", "a state must not be requantised at every tick"
    assert (tiny_bundle / GRAPHS["int8"]).stat().st_size < (tiny_bundle / GRAPHS["fp32"]).stat().st_size


def test_golden_vectors_prove_both_precisions(tiny_bundle: Path) -> None:
    bundle, golden = bundles.read(tiny_bundle), load_golden(tiny_bundle / "golden.npz")
    fp32 = compare(OnnxEngine.from_bundle(bundle, "fp32"), golden)
    int8 = compare(OnnxEngine.from_bundle(bundle, "int8"), golden)
    assert max(v["max_abs"] for v in fp32.values()) < 1e-4
    assert 20 < int8["probs"]["sqnr_db"] < 150, "INT8 is close, and is not fp32 by another name"


def test_broken_golden_vectors_are_refused_without_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", **{"in.frame": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(BundleError, match="golden vectors"):
        load_golden(tmp_path / "g.npz")
    np.savez_compressed(tmp_path / "g.npz", **{"in.frame": np.arange(9_999) % 251})
    whole = (tmp_path / "g.npz").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:200] + bytes(50) + whole[250:]):
        (tmp_path / "g.npz").write_bytes(damaged)
        with pytest.raises(BundleError, match="golden vectors"):
            load_golden(tmp_path / "g.npz")


@pytest.mark.parametrize(
    ("fp32", "int8", "chosen", "said"),
    [
        ((0.98, 2.0), (0.98, 1.0), "int8", "2.00x"),
        ((0.98, 2.0), (0.97, 1.0), "fp32", "loses 1.00 points"),
        ((0.98, 1.0), (0.98, 2.0), "fp32", "slower"),
        ((0.98, 2.0), (0.976, 1.9), "int8", "loses 0.40 points"),
    ],
)
def test_the_choice_and_its_reason(fp32, int8, chosen: str, said: str) -> None:  # type: ignore[no-untyped-def]
    accuracy = {p: {"event_accuracy": a, "n_events": 100} for p, (a, _) in (("fp32", fp32), ("int8", int8))}
    latency = {p: {"p50_ms": t} for p, (_, t) in (("fp32", fp32), ("int8", int8))}
    assert choose(accuracy, latency)[0] == chosen
    assert said in choose(accuracy, latency)[1]


def test_the_report_holds_what_the_issue_asks(tiny_bundle: Path) -> None:
    report = json.loads((tiny_bundle / "report.json").read_text())
    for precision in ("fp32", "int8"):
        found = report["precisions"][precision]
        assert found["bytes"] > 1e5
        assert set(found["parity"]["probs"]) == {"max_abs", "sqnr_db"}
        assert found["accuracy"]["n_events"] > 0
        assert {"n", "p50_ms", "p90_ms", "p99_ms"} == set(found["latency"])
    assert "part calibration" in report["calibration"]["source"]
    assert "part check" in report["check"]["name"]
    assert report["chosen"]["why"]


def test_a_graph_that_is_none_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = bundles.read(tiny_bundle)
    (tmp_path / "x.onnx").write_bytes(b"no model at all")
    with pytest.raises(BundleError, match=r"x\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(tmp_path / "x.onnx", bundle.config, "fp32")
    with pytest.raises(BundleError, match=r"no fp16 graph; this bundle has"):
        bundle.graph("fp16")


def test_percentiles_count_and_rise() -> None:
    found = percentiles(list(np.linspace(0.001, 0.002, 101)))
    assert found == {"n": 101, "p50_ms": 1.5, "p90_ms": 1.9, "p99_ms": 1.99}
