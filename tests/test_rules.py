"""Each rule of `clcr-edge check` on a tiny graph that breaks it and nothing else; names in model words; the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from clcr_edge.cli import app  # noqa: E402
from clcr_edge.errors import BundleError  # noqa: E402
from clcr_edge.export.rules.check import RULES, findings  # noqa: E402
from clcr_edge.export.rules.load import load  # noqa: E402

F, H, D = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
U8, I32, I64 = TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64
Values = dict[str, tuple[int, Sequence[Any]]]
Arrays = dict[str, npt.NDArray[Any]]


def model(nodes: list[Any], inputs: Values, outputs: Values, arrays: Arrays | None = None, opset: int = 20) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *v) for n, v in inputs.items()],
        [helper.make_tensor_value_info(n, *v) for n, v in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (arrays or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    names = outputs.split()
    return helper.make_node(kind, inputs.split(), [n.replace("-", "") for n in names], name=f"n_{names[-1]}", **attributes)


def one(kind: str, shape: Sequence[Any] = (4,), of: int = F, arrays: Arrays | None = None, **attributes: Any) -> Any:
    """x -> one node -> y of the same type and shape."""
    extra = " ".join(arrays or {})
    return model([node(kind, f"x {extra}", "y", **attributes)], {"x": (of, shape)}, {"y": (of, shape)}, arrays)


def conv(
    scale: Any = None,
    zero: Any = None,
    weight_axis: int = 0,
    x: int = F,
    bias: list[Any] | None = None,
    opset: int = 20,
    **more: npt.NDArray[Any],
) -> Any:
    """x -> Q -> DQ -> convolution with INT8 weights, as TensorRT wants it but for what is changed."""
    s = np.float32(0.1) if scale is None else scale
    z = np.int8(0) if zero is None else zero
    arrays: Arrays = {"s": np.asarray(s), "z": np.asarray(z), "frame_body.0.bias": np.ones(4, np.float32), **more}
    arrays |= {"frame_body.0.weight.q": np.ones((4, 4, 3, 3), np.int8), "ws": np.full(4, 0.1, np.float32)}
    nodes = [
        node("QuantizeLinear", "x s z", "q", axis=1),
        node("DequantizeLinear", "q s z", "d", axis=1),
        node("DequantizeLinear", "frame_body.0.weight.q ws", "w", axis=weight_axis),
        *(bias or []),
        node("Conv", f"d w {'b' if bias else 'frame_body.0.bias'}", "y", pads=[1, 1, 1, 1]),
    ]
    return model(nodes, {"x": (x, [1, 4, 8, 8])}, {"y": (F, [1, 4, 8, 8])}, arrays, opset)


def no_zero_point() -> Any:
    made = conv()
    for n in made.graph.node[:2]:
        del n.input[2]
    return made


def scale_from_outside() -> Any:
    made = conv()
    del made.graph.initializer[[i.name for i in made.graph.initializer].index("s")]
    made.graph.input.append(helper.make_tensor_value_info("s", F, []))
    return made


def integer_codes() -> Any:
    nodes = [node("DequantizeLinear", "x s", "d"), node("MatMul", "d w", "y")]
    arrays = {"s": np.array(0.1, np.float32), "w": np.ones((4, 4), np.float32)}
    return model(nodes, {"x": (I32, [4, 4])}, {"y": (F, [4, 4])}, arrays)


def pair(kind: str, shape: list[int], out: str = "y", **attributes: Any) -> Any:
    """x -> Q -> DQ -> one node."""
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node(kind, "d", out, **attributes)]
    arrays: Arrays = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    return model(nodes, {"x": (F, shape)}, {out: (F, shape)}, arrays)


def scalar() -> Any:
    made = pair("Identity", [])
    made.graph.node[2].op_type = "Add"
    made.graph.node[2].input.append("x")
    return made


def branch() -> Any:
    bodies = {
        name: helper.make_graph([node("Abs", "x", name)], name, [], [helper.make_tensor_value_info(name, F, [4])])
        for name in ("then", "else")
    }
    nodes = [node("If", "c", "y", then_branch=bodies["then"], else_branch=bodies["else"])]
    return model(nodes, {"x": (F, [4]), "c": (TensorProto.BOOL, [])}, {"y": (F, [4])})


def loop() -> Any:
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Abs", "a", "b")],
        "body",
        [helper.make_tensor_value_info(n, *v) for n, v in {"i": (I64, []), "go": (9, []), "a": (F, [4])}.items()],
        [helper.make_tensor_value_info(n, *v) for n, v in {"on": (9, []), "b": (F, [4])}.items()],
    )
    arrays = {"n": np.array(3), "go": np.array(True)}
    return model([node("Loop", "n go x", "y", body=body)], {"x": (F, [4])}, {"y": (F, [4])}, arrays)


def dynamic_quantisation() -> Any:
    return model(
        [node("DynamicQuantizeLinear", "x", "y s z")], {"x": (F, [4])}, {"y": (U8, [4]), "s": (F, []), "z": (U8, [])}
    )


def top(k: int, **attributes: Any) -> Any:
    nodes = [node("TopK", "x k", "v i", **attributes)]
    return model(nodes, {"x": (F, [5000])}, {"v": (F, [k]), "i": (I64, [k])}, {"k": np.array([k])})


def handed_on(k: int | None) -> Any:
    """TopK whose k comes as exporters write it: a Constant's short form and a Reshape; None: from outside."""
    made = top(4000 if k is None else k)
    del made.graph.initializer[:]
    if k is None:
        made.graph.input.append(helper.make_tensor_value_info("k", I64, [1]))
        return made
    first = [helper.make_node("Constant", [], ["k0"], value_int=k), helper.make_node("Constant", [], ["one"], value_ints=[1])]
    nodes = [*first, node("Reshape", "k0 one", "k"), *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def scale_in_short_form(scale: float) -> Any:
    made = conv()
    del made.graph.initializer[[i.name for i in made.graph.initializer].index("s")]
    made.graph.node.insert(0, helper.make_node("Constant", [], ["s"], value_float=scale))
    return made


def lstm() -> Any:
    arrays = {"w": np.ones((1, 12, 4), np.float32), "r": np.ones((1, 12, 3), np.float32)}
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], name="n", hidden_size=3, layout=1)]
    return model(nodes, {"x": (F, [1, 2, 4])}, {"y": (F, [1, 1, 3])}, arrays)


def norm() -> Any:
    nodes = [node("LayerNormalization", "x g", "y mean")]
    return model(nodes, {"x": (F, [2, 4])}, {"y": (F, [2, 4]), "mean": (F, [2, 1])}, {"g": np.ones(4, np.float32)})


def quantised_bias() -> Any:
    return conv(bias=[node("DequantizeLinear", "bq bs", "b", axis=0)], bq=np.ones(4, np.int32), bs=np.full(4, 0.01, np.float32))


def state(kind: str, **attributes: Any) -> Any:
    made = pair(kind, [4], "next_memory", **attributes)
    made.graph.node.append(node("Abs", "x", "y"))
    made.graph.output.append(helper.make_tensor_value_info("y", F, [4]))
    return made


def through_int16() -> Any:
    nodes = [node("Cast", "x", "c", to=TensorProto.INT16), node("Cast", "c", "y", to=F)]
    return model(nodes, {"x": (F, [4])}, {"y": (F, [4])})


def computed_axes() -> Any:
    return model([node("ReduceSum", "x a", "y", keepdims=1)], {"x": (F, [4, 4]), "a": (I64, [1])}, {"y": (F, [4, 1])})


def old_half() -> Any:
    """FP16 all through, in an opset whose scales are FP32."""
    return conv(scale=np.float16(0.1), x=H, opset=17)


Builder = Callable[[], Any]
# rule, a graph that breaks it and no other rule, does ONNX's own full check pass it?
CASES: list[tuple[str, Builder, bool]] = [
    ("opset", lambda: model([node("Abs", "x", "y")], {"x": (F, [4])}, {"y": (F, [4])}, opset=21), True),
    ("opset", lambda: model([node("Abs", "x", "y")], {"x": (F, [4])}, {"y": (F, [4])}, opset=8), True),
    ("float64", lambda: one("Abs", of=D), True),
    ("unsupported-type", through_int16, True),
    ("constant-not-a-number", lambda: one("Add", of=H, arrays={"c": np.array([np.inf] * 4, np.float16)}), True),
    ("constant-not-a-number", lambda: one("Add", arrays={"c": np.array([np.nan] * 4, np.float32)}), True),
    ("dynamic-shape", lambda: one("Abs", shape=["batch", 4]), True),
    (
        "convolution-rank",
        lambda: one("Conv", [1, 4, 9], arrays={"w": np.ones((4, 4, 3), np.float32)}, pads=[1, 1]),
        True,
    ),
    ("computed-axes", computed_axes, True),
    ("control-flow", branch, True),
    ("control-flow", loop, True),
    ("data-dependent-shape", lambda: model([node("NonZero", "x", "y")], {"x": (F, [4])}, {"y": (I64, [1, 4])}), True),
    ("cumsum", lambda: one("CumSum", arrays={"a": np.array(0)}), True),
    ("cumsum", lambda: one("CumSum", of=I64, arrays={"a": np.array(0)}), True),
    ("unique", lambda: one("Unique"), True),
    ("dynamic-quantisation", dynamic_quantisation, True),
    ("unsupported-operator", lambda: one("Hardshrink", domain="com.example"), False),
    ("unsupported-operator", lambda: model([node("Det", "x", "y")], {"x": (F, [1, 4, 4])}, {"y": (F, [1])}), True),
    ("operator-type", lambda: one("Clip", of=I64, arrays={"low": np.array(1)}), True),
    ("operator-type", lambda: one("MatMul", [4, 4], I32, {"w": np.ones((4, 4), np.int32)}), True),
    ("topk", lambda: top(4000), True),
    ("topk", lambda: top(3840), True),
    ("topk", lambda: top(4, sorted=0), True),
    ("topk", lambda: handed_on(4000), True),
    ("topk", lambda: handed_on(None), True),
    ("scale-not-positive", lambda: scale_in_short_form(-0.1), True),
    ("scatter", lambda: one("ScatterElements", arrays={"i": np.array([0]), "u": np.ones(1, np.float32)}), True),
    ("einsum", lambda: one("Einsum", arrays={"w": np.ones((4, 4), np.float32)}, equation="...i,ij->...j"), True),
    ("einsum", lambda: model([node("Einsum", "x", "y", equation="ii->i")], {"x": (F, [4, 4])}, {"y": (F, [4])}), True),
    ("extra-outputs", norm, True),
    ("recurrent-attributes", lstm, True),
    ("uint8-zero-point", lambda: conv(zero=np.uint8(0)), True),
    ("uint8-zero-point", lambda: conv(zero=np.uint8(128)), True),
    ("quantised-type", integer_codes, True),
    ("no-zero-point", no_zero_point, True),
    ("nonzero-zero-point", lambda: conv(zero=np.int8(5)), True),
    ("scale-not-constant", scale_from_outside, True),
    ("scale-not-positive", lambda: conv(scale=np.float32(0)), True),
    ("scale-not-positive", lambda: conv(scale=np.float32(np.inf)), True),
    ("per-axis-activation", lambda: conv(scale=np.full(4, 0.1, np.float32), zero=np.zeros(4, np.int8)), True),
    ("per-axis-weight", lambda: conv(weight_axis=1), True),
    ("blocked-scale", lambda: conv(scale=np.full((1, 1), 0.1, np.float32), zero=np.zeros((1, 1), np.int8)), True),
    ("scale-type", lambda: conv(x=H), False),
    ("fp16-scale-opset", old_half, False),
    ("quantised-bias", quantised_bias, True),
    ("scalar-quantised", scalar, True),
    ("dequantise-placement", lambda: pair("Softmax", [1, 4]), True),
    ("dequantise-placement", lambda: pair("Sigmoid", [4]), True),
    ("state-quantised", lambda: state("Identity"), True),
    ("state-quantised", lambda: state("Transpose", perm=[0]), True),
    ("malformed-node", lambda: model([node("MatMul", "x", "y")], {"x": (F, [4])}, {"y": (F, [4])}), False),
    ("malformed-node", lambda: one("Einsum", arrays={"w": np.ones((4, 4), np.float32)}, equation="i,ij-.j"), False),
    ("invalid-onnx", lambda: model([node("Abs", "nowhere", "y")], {"x": (F, [4])}, {"y": (F, [4])}), False),
]


def passes_onnx(graph: Any) -> bool:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@pytest.mark.parametrize(("rule", "build", "passes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_a_rule_finds_its_breach_and_no_other_does(rule: str, build: Builder, passes: bool) -> None:
    graph = build()
    found = findings(graph)
    assert {f.rule for f in found} == {rule}, found
    assert passes_onnx(graph) == passes, "ONNX's own checker changed its mind"
    for f in found:
        assert f.problem
        assert f.remedy
        assert "\n" not in f.problem


def test_every_rule_has_a_case() -> None:
    assert {c[0] for c in CASES} == {r.name for r in RULES} | {"invalid-onnx"}
    assert len({r.name for r in RULES}) == len(RULES)


def test_what_tensorrt_takes_passes() -> None:
    assert findings(conv()) == []
    assert findings(top(100)) == []
    assert findings(handed_on(100)) == []
    assert findings(scale_in_short_form(0.1)) == []
    assert findings(one("CumSum", arrays={"a": np.array(0)})) != []


def test_a_residual_add_and_a_pool_may_read_a_pair() -> None:
    made = pair("MaxPool", [1, 2, 4, 4], kernel_shape=[1, 1])
    assert findings(made) == []


def test_a_state_behind_a_convolution_is_another_tensor() -> None:
    """Q/DQ in front of a convolution is how it should be, also where its result is remembered."""
    made = conv()
    made.graph.node[-1].output[0] = made.graph.output[0].name = "next_features"
    assert findings(made) == []


def test_one_fault_of_a_pair_is_told_once() -> None:
    assert len(findings(conv(zero=np.int8(5)))) == 1


def test_places_are_told_in_model_words() -> None:
    (found,) = findings(conv(zero=np.int8(5)))
    assert found.unit == "vision.encoder.conv1"
    assert found.node == "n_q"
    assert "zero point 5" in found.problem


@pytest.mark.parametrize(
    ("weight", "unit"),
    [
        ("vision.encoder.stage2.weight", "vision.encoder.stage2"),
        ("audio.level2.intraced.query", "audio.level2.intraced"),
        ("intercad", "intercad"),
        ("head.0.weight", "head"),
        ("inter_cad.head.3.weight", "head"),
        ("inter_cad.gate", "intercad"),
        ("theta", "intraced"),
        ("level_media", "media.tokens"),
        ("embedding.weight", "language.encoder"),
        ("conv4_weight", "media.tcn.conv4"),
        ("val_12", "n_y"),
    ],
)
def test_a_weight_names_its_unit(weight: str, unit: str) -> None:
    (found,) = findings(one("MatMul", [4, 4], I32, {weight: np.ones((4, 4), np.int32)}))
    assert found.unit == unit


def test_a_node_without_weights_is_named_by_its_neighbour() -> None:
    nodes = [node("MatMul", "x inter_cad.context.weight", "m"), node("CumSum", "m a", "y")]
    arrays = {"inter_cad.context.weight": np.ones((4, 4), np.float32), "a": np.array(0)}
    (found,) = findings(model(nodes, {"x": (F, [4, 4])}, {"y": (F, [4, 4])}, arrays))
    assert (found.unit, found.node) == ("intercad", "n_y")


def test_the_model_is_not_changed() -> None:
    made = conv(zero=np.uint8(3))
    before = made.SerializeToString()
    findings(made)
    assert made.SerializeToString() == before


def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Whatever parses is judged; whatever does not is one line."""
    whole, path, rng = conv().SerializeToString(), tmp_path / "x.onnx", np.random.default_rng(0)
    judged = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            findings(load(path))
            judged += 1
        except BundleError:
            pass
    assert judged > 30, "most damage must reach the rules, or this tests the parser alone"


class TestCommand:
    def test_no_finding_is_exit_code_0(self, tmp_path: Path) -> None:
        onnx.save(conv(), tmp_path / "good.onnx")
        done = CliRunner().invoke(app, ["check", str(tmp_path / "good.onnx")])
        assert (done.exit_code, done.stdout) == (0, "good.onnx: no finding\n")

    def test_findings_are_exit_code_1_and_carry_the_remedy(self, tmp_path: Path) -> None:
        onnx.save(conv(zero=np.int8(5)), tmp_path / "bad.onnx")
        done = CliRunner().invoke(app, ["check", str(tmp_path / "bad.onnx")])
        assert done.exit_code == 1
        assert done.stdout.splitlines()[0] == "bad.onnx: 1 finding"
        assert "nonzero-zero-point: vision.encoder.conv1 (node n_q)" in done.stdout
        assert "remedy: a zero point of 0" in done.stdout

    def test_json_holds_the_same(self, tmp_path: Path) -> None:
        onnx.save(conv(zero=np.int8(5)), tmp_path / "bad.onnx")
        done = CliRunner().invoke(app, ["check", "--json", str(tmp_path / "bad.onnx")])
        (graph,) = json.loads(done.stdout)["graphs"]
        assert done.exit_code == 1
        assert [f["rule"] for f in graph["findings"]] == ["nonzero-zero-point"]
        assert set(graph["findings"][0]) == {"rule", "unit", "node", "problem", "remedy"}

    def test_a_wrong_call_is_exit_code_2_and_what_is_not_there_1(self, tmp_path: Path) -> None:
        assert CliRunner().invoke(app, ["check"]).exit_code == 2
        done = CliRunner().invoke(app, ["check", str(tmp_path / "nothing.onnx")])
        assert isinstance(done.exception, BundleError)
        assert done.exception.exit_code == 1


@pytest.mark.parametrize("damage", ["noise", "cut", "empty", "outside"])
def test_a_corrupt_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path, whole = tmp_path / "x.onnx", conv().SerializeToString()
    if damage == "outside":
        made = conv()
        onnx.external_data_helper.convert_model_to_external_data(made, location="gone.bin", size_threshold=0)
        onnx.save(made, path)
        (tmp_path / "gone.bin").unlink()
    else:
        path.write_bytes({"noise": b"no model at all", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(BundleError, match=r"x\.onnx: not (readable as|an) ONNX") as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_the_rules_are_in_the_wheel() -> None:
    """Packages are named one by one in pyproject.toml; a forgotten one is missing only where clcr-edge was installed."""
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8")
    assert '"clcr_edge.export.rules",' in text
