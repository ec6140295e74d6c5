"""The step as C: every operator against ONNX Runtime, on the vectors of several machines, and what a graph cannot do to it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from random_graphs import RandomGraph

from clcr_edge.errors import EngineError, MissingPartError
from clcr_edge.export.native.compiler import Compiler, find_compiler
from clcr_edge.export.native.graph import read_graph
from clcr_edge.export.native.ready import compile_step
from clcr_edge.export.native.vectors import pieces
from clcr_edge.runtime.native_engine import Block, NativeStep, Workspace
from clcr_edge.runtime.onnx_engine import open_graph

F, INT, LONG, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
_KINDS: dict[int, Any] = {F: np.float32, INT: np.int32, LONG: np.int64, BOOL: np.bool_}
Inputs = dict[str, tuple[int, list[int]]]


def model(nodes: list[Any], inputs: Inputs, outputs: Inputs, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def run_native(made: onnx.ModelProto, feed: dict[str, np.ndarray], folder: Path, compiler: Compiler | None = None) -> list[Any]:
    path = folder / "graph.onnx"
    onnx.save(made, path)
    graph = read_graph(path)
    step = NativeStep(compile_step(graph, compiler or find_compiler(), folder, graph.inputs, graph.outputs))
    work = step.workspace()
    found: list[Any] = []
    for _ in range(2):  # twice: the second must find its memory as the first did
        for name, view in work.views.items():
            view[...] = feed[name]
        found, _ = step(work, step.first_state())
    return found


def feed_of(inputs: Inputs, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(shape) * 2).astype(_KINDS[kind]) for n, (kind, shape) in inputs.items()}


def hold(made: onnx.ModelProto, inputs: Inputs, folder: Path, feed: dict[str, np.ndarray] | None = None) -> None:
    """The C gives what ONNX Runtime gives."""
    feed = feed or feed_of(inputs)
    wanted = open_graph(made.SerializeToString()).run(None, feed)
    for name, a, b in zip((o.name for o in made.graph.output), run_native(made, feed, folder), wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("shapes", [([2, 3, 5], [3, 1]), ([7], [4, 1, 7]), ([1], [40]), ([3, 4], [3, 4])])
def test_two_sided_operators_spread_as_in_onnx(op: str, shapes: tuple[list[int], list[int]], tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, shapes[0]), "b": (F, shapes[1])}
    out = list(np.broadcast_shapes(*shapes))
    hold(model([helper.make_node(op, ["a", "b"], ["y"])], inputs, {"y": (F, out)}), inputs, tmp_path)


def test_one_sided_operators(tmp_path: Path) -> None:
    ops = ["Relu", "Abs", "Sigmoid", "Exp", "Neg"]
    inputs: Inputs = {"a": (F, [5, 33])}
    nodes = [helper.make_node(op, ["a"], [op]) for op in ops]
    nodes += [helper.make_node("Abs", ["a"], ["size"]), helper.make_node("Sqrt", ["size"], ["Sqrt"])]
    nodes += [helper.make_node("Reciprocal", ["a"], ["Reciprocal"]), helper.make_node("Clip", ["a", "low", "high"], ["Clip"])]
    nodes += [helper.make_node("Clip", ["a", "low"], ["from"]), helper.make_node("Clip", ["a", "", "high"], ["to"])]
    nodes += [helper.make_node("Pow", ["a", "two"], ["Pow"])]
    made = [*ops, "Sqrt", "Reciprocal", "Clip", "from", "to", "Pow"]
    constants = {"low": np.float32(-0.5), "high": np.float32(1.25), "two": np.float32(2.0)}
    outputs: Inputs = {n: (F, [5, 33]) for n in made}
    hold(model(nodes, inputs, outputs, {k: np.array(v) for k, v in constants.items()}), inputs, tmp_path)


def test_what_is_asked_and_what_is_chosen(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [4, 40]), "b": (F, [4, 40]), "row": (F, [4, 1]), "n": (INT, [4, 40])}
    nodes = [
        helper.make_node("Greater", ["a", "b"], ["more"]),
        helper.make_node("LessOrEqual", ["a", "half"], ["little"]),
        helper.make_node("And", ["more", "little"], ["both"]),
        helper.make_node("Not", ["both"], ["neither"]),
        helper.make_node("Where", ["neither", "a", "minus"], ["chosen"]),
        helper.make_node("GreaterOrEqual", ["row", "half"], ["whole"]),
        helper.make_node("Where", ["whole", "a", "b"], ["rows"]),
        helper.make_node("Cast", ["more"], ["number"], to=F),
        helper.make_node("Cast", ["n"], ["long"], to=LONG),
        helper.make_node("Max", ["long", "one"], ["most"]),
        helper.make_node("Cast", ["most"], ["back"], to=F),
        helper.make_node("Cast", ["n"], ["any"], to=BOOL),
        helper.make_node("Where", ["any", "a", "minus"], ["some"]),
    ]
    outputs: Inputs = {n: (F, [4, 40]) for n in ("chosen", "rows", "number", "back", "some")}
    constants = {"half": np.float32(0.5), "minus": np.float32(-1e9), "one": np.int64(1)}
    hold(model(nodes, inputs, outputs, {k: np.array(v) for k, v in constants.items()}), inputs, tmp_path)


def test_a_nan_that_is_replaced_does_not_pass_and_one_that_is_not_does(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [48])}
    nodes = [
        helper.make_node("Greater", ["a", "zero"], ["fine"]),
        helper.make_node("Where", ["fine", "a", "zero"], ["kept"]),
        helper.make_node("Relu", ["a"], ["relu"]),
        helper.make_node("Exp", ["a"], ["exp"]),
    ]
    made = model(nodes, inputs, {n: (F, [48]) for n in ("kept", "relu", "exp")}, {"zero": np.array(np.float32(0))})
    given = np.linspace(-3, 3, 48).astype(np.float32)
    given[::5] = np.nan
    kept, relu, exp = run_native(made, {"a": given}, tmp_path)
    assert np.isfinite(kept).all()
    assert np.array_equal(np.isnan(relu), np.isnan(given))
    assert np.array_equal(np.isnan(exp), np.isnan(given))


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [[0], [1], [2], [-1], [0, 2], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions_over_any_axes(op: str, axes: list[int], keep: int, tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3, 5, 34]), "b": (F, [34])}
    shape = list(np.zeros((3, 5, 34)).sum(axis=tuple(axes), keepdims=bool(keep)).shape)
    nodes = [helper.make_node("Mul", ["a", "b"], ["x"]), helper.make_node(op, ["x", "axes"], ["y"], keepdims=keep)]
    hold(model(nodes, inputs, {"y": (F, shape)}, {"axes": np.array(axes, np.int64)}), inputs, tmp_path)


def test_long_sums(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [2, 24, 32]), "b": (F, [2, 1, 32])}
    nodes = [
        helper.make_node("ReduceMean", ["a", "two"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["a", "mean"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["square"]),
        helper.make_node("ReduceMean", ["square", "two"], ["spread"], keepdims=0),
        helper.make_node("Mul", ["a", "b"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "two"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["a"], ["all"], keepdims=0),
        helper.make_node("ReduceMax", ["a", "two"], ["top"], keepdims=0),
    ]
    outputs: Inputs = {"spread": (F, [2]), "sum": (F, [2]), "top": (F, [2]), "all": (F, [])}
    hold(model(nodes, inputs, outputs, {"two": np.array([1, 2], np.int64)}), inputs, tmp_path)


def test_whole_numbers_are_counted(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3, 7])}
    nodes = [
        helper.make_node("Greater", ["a", "zero"], ["more"]),
        helper.make_node("Cast", ["more"], ["number"], to=LONG),
        helper.make_node("ReduceSum", ["number", "last"], ["count"], keepdims=0),
        helper.make_node("Cast", ["count"], ["y"], to=F),
    ]
    constants: dict[str, np.ndarray] = {"zero": np.array(np.float32(0)), "last": np.array([-1], np.int64)}
    hold(model(nodes, inputs, {"y": (F, [3])}, constants), inputs, tmp_path)


def test_softmax_and_normalisation(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3, 5, 47]), "mask": (F, [5, 1])}
    nodes = [
        helper.make_node("Greater", ["mask", "zero"], ["there"]),
        helper.make_node("Where", ["there", "a", "far"], ["x"]),
        helper.make_node("Softmax", ["x"], ["soft"], axis=-1),
        helper.make_node("LayerNormalization", ["a", "gain", "shift"], ["norm"], axis=-1, epsilon=1e-5),
        helper.make_node("LayerNormalization", ["a", "gain"], ["plain"], axis=-1, epsilon=1e-5),
    ]
    rng = np.random.default_rng(1)
    constants = {
        "zero": np.array(np.float32(0)),
        "far": np.array(np.float32(-1e9)),
        "gain": rng.random(47, np.float32),
        "shift": rng.random(47, np.float32),
    }
    hold(model(nodes, inputs, {n: (F, [3, 5, 47]) for n in ("soft", "norm", "plain")}, constants), inputs, tmp_path)


def test_nothing_is_moved_that_need_not_be_and_what_must_be_arrives(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [4, 6, 5]), "b": (F, [4, 2, 5])}
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
        helper.make_node("Slice", ["both", "from", "to", "one"], ["part"]),
        helper.make_node("Transpose", ["part"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["turned", "flat"], ["copied"]),
        helper.make_node("Unsqueeze", ["b", "zero"], ["high"]),
        helper.make_node("Expand", ["high", "wide"], ["spread"]),
        helper.make_node("Split", ["a"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Relu", ["left"], ["l"]),
        helper.make_node("Neg", ["right"], ["r"]),
        helper.make_node("Concat", ["l", "r", "l"], ["twice"], axis=-1),
        helper.make_node("Gather", ["a", "second"], ["picked"], axis=1),
        helper.make_node("Squeeze", ["picked", "one"], ["row"]),
        helper.make_node("Add", ["row", "row"], ["double"]),
    ]
    outputs: Inputs = {
        "both": (F, [4, 8, 5]), "copied": (F, [20, 5]), "spread": (F, [3, 4, 2, 5]), "twice": (F, [4, 3, 15]),
        "row": (F, [4, 5]), "double": (F, [4, 5]), "turned": (F, [5, 4, 5]),
    }  # fmt: skip
    constants: dict[str, Any] = {
        "from": [2], "to": [7], "one": [1], "flat": [20, 5], "zero": [0], "wide": [3, 4, 2, 5], "second": [1]
    }  # fmt: skip
    made = model(nodes, inputs, outputs, {k: np.array(v, np.int64) for k, v in constants.items()})
    hold(made, inputs, tmp_path)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_takes_what_is_asked_for_and_refuses_what_is_not_there(axis: int, tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [4, 5, 6]), "at": (INT, [2, 3])}
    shape = [*[4, 5, 6][:axis], 2, 3, *[4, 5, 6][axis + 1 :]]
    made = model([helper.make_node("Gather", ["a", "at"], ["y"], axis=axis)], inputs, {"y": (F, shape)})
    feed = feed_of(inputs) | {"at": np.array([[0, 3, 1], [2, 2, 0]], np.int32)}
    hold(made, inputs, tmp_path, feed)
    for wrong in (-1, 6, 2**31 - 1, -(2**31)):
        with pytest.raises(EngineError, match="a row that its table does not have"):
            run_native(made, feed | {"at": np.full((2, 3), wrong, np.int32)}, tmp_path)


@pytest.mark.parametrize(
    ("left", "right"),
    [([1, 64], [64, 64]), ([4, 33], [33, 64]), ([3, 48, 24], [3, 24, 48]), ([18, 1, 128], [18, 128, 64]), ([5, 7], [7, 11]),
     ([3, 2, 1, 16], [3, 2, 16, 48]), ([2, 3, 5], [5, 1]), ([1, 3], [3, 120])],
)  # fmt: skip
@pytest.mark.parametrize("fixed", [True, False])
def test_matrix_products(left: list[int], right: list[int], fixed: bool, tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, left)}
    constants: dict[str, np.ndarray] = {}
    if not fixed:
        inputs["b"] = (F, right)
    else:
        constants["b"] = np.random.default_rng(2).standard_normal(right).astype(np.float32)
    shape = [*np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2])), left[-2], right[-1]]
    hold(model([helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, {"y": (F, shape)}, constants), inputs, tmp_path)


def test_a_product_with_a_turned_factor(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3, 8, 24]), "b": (F, [3, 9, 24]), "c": (F, [8, 24])}
    rng = np.random.default_rng(3)
    weights = {"w": rng.standard_normal((11, 24)).astype(np.float32), "bias": rng.random(11, np.float32)}
    nodes = [
        helper.make_node("Transpose", ["b"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "turned"], ["y"]),
        helper.make_node("Gemm", ["c", "w", "bias"], ["z"], transB=1),
    ]
    hold(model(nodes, inputs, {"y": (F, [3, 8, 9]), "z": (F, [8, 11])}, weights), inputs, tmp_path)


@pytest.mark.parametrize(
    ("shape", "weight", "strides", "pads"),
    [([1, 1, 24, 24], [32, 1, 6, 6], [4, 4], [1, 1, 1, 1]), ([1, 3, 9, 7], [24, 3, 3, 5], [1, 2], [0, 2, 0, 2]),
     ([2, 16, 6, 6], [48, 16, 3, 3], [2, 2], [1, 1, 1, 1]), ([1, 5, 4, 4], [7, 5, 1, 1], [1, 1], [0, 0, 0, 0]),
     ([1, 8, 3, 5], [64, 8, 3, 5], [1, 1], [0, 0, 0, 0]), ([3, 2, 5, 5], [96, 2, 2, 2], [1, 1], [0, 1, 1, 0])],
)  # fmt: skip
def test_convolutions_one_after_another(
    shape: list[int], weight: list[int], strides: list[int], pads: list[int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    rows = (shape[2] + pads[0] + pads[2] - weight[2]) // strides[0] + 1
    columns = (shape[3] + pads[1] + pads[3] - weight[3]) // strides[1] + 1
    middle = [shape[0], weight[0], rows, columns]
    constants = {
        "w": (0.1 * rng.standard_normal(weight)).astype(np.float32),
        "b": rng.standard_normal(weight[0]).astype(np.float32),
        "w2": (0.1 * rng.standard_normal((9, weight[0], 3, 3))).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=strides, pads=pads),
        helper.make_node("Relu", ["c"], ["y"]),
        helper.make_node("Conv", ["y", "w2"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["z", "axes"], ["mean"], keepdims=0),
    ]
    constants["axes"] = np.array([2, 3], np.int64)
    inputs: Inputs = {"x": (F, shape)}
    outputs: Inputs = {"y": (F, middle), "z": (F, [shape[0], 9, rows, columns]), "mean": (F, [shape[0], 9])}
    for chosen in (outputs, {"mean": outputs["mean"]}):  # with what lies between as outputs, and without
        hold(model(nodes, inputs, chosen, constants), inputs, tmp_path)


def _machines() -> list[Any]:
    plain = pytest.param(Compiler(("cc",), (), 4, 16, "plain"), id="plain")
    if platform.machine() != "x86_64":
        return [plain]
    flags = Path("/proc/cpuinfo").read_text("utf-8")
    avx2 = Compiler(("cc",), ("-mavx2", "-mfma"), 8, 16, "AVX2")
    return [plain, pytest.param(avx2, id="avx2", marks=[] if "avx2" in flags else pytest.mark.skip("no AVX2 here"))]


def _one_tick(step_model: onnx.ModelProto, step: NativeStep) -> tuple[Workspace, Block, dict[str, np.ndarray]]:
    """Inputs and a state with something in them, and what ONNX Runtime makes of them, by name."""
    work, rng = step.workspace(), np.random.default_rng(5)
    for name, view in work.views.items():
        if name == "ngrams":
            view[...] = rng.integers(0, 50, view.shape)
        elif name == "n_new":
            view[...] = [[2, 1, 1], [2, 1, 0], [2, 0, 1]]
        else:
            view[...] = rng.random(view.shape)
    state = step.first_state()
    states = step.states.views(state.memory)
    for name, view in states.items():
        view[...] = (rng.standard_normal(view.shape) > 0.3) if name == "tokens" else rng.random(view.shape)
    session = open_graph(step_model.SerializeToString())
    wanted = session.run(None, dict(work.views) | states)
    return work, state, dict(zip((o.name for o in session.get_outputs()), wanted, strict=True))


def _hold_tick(step: NativeStep, outputs: list[Any], new: np.ndarray, wanted: dict[str, np.ndarray]) -> None:
    found = dict(zip(step.outputs.tensors, outputs, strict=True))
    found |= {f"next_{n}": v for n, v in step.states.views(new).items()}
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("compiler", _machines())
def test_the_whole_step_on_narrower_vectors(step_model: onnx.ModelProto, compiler: Compiler, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    onnx.save(step_model, path)
    step = NativeStep(compile_step(read_graph(path), compiler, tmp_path))
    work, state, wanted = _one_tick(step_model, step)
    outputs, new = step(work, state)
    _hold_tick(step, outputs, new.memory, wanted)


_ON_ARM = """
#include <stdio.h>
#include <stdlib.h>
int clcr_step(const char *, const char *, char *, char *, const char *, char *);
static char *block(size_t size) { return aligned_alloc(64, (size + 63) / 64 * 64); }
int main(void) {
    const size_t sizes[] = { IN, STATE, WEIGHTS };
    char *given[3], *out = block(OUT), *next = block(STATE), *scratch = block(SCRATCH);
    for (int k = 0; k < 3; k++) {
        given[k] = block(sizes[k]);
        if (fread(given[k], 1, sizes[k], stdin) != sizes[k]) return 2;
    }
    for (size_t k = 0; k < SCRATCH; k++) scratch[k] = 0;
    if (clcr_step(given[0], given[1], out, next, given[2], scratch)) return 3;
    fwrite(out, 1, OUT, stdout);
    fwrite(next, 1, STATE, stdout);
    return 0;
}
"""
ARM_COMPILER, ARM_MACHINE = "aarch64-linux-gnu-gcc", "qemu-aarch64"


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not (which(ARM_COMPILER) and which(ARM_MACHINE)),
    reason=f"needs an x86-64 with {ARM_COMPILER} and {ARM_MACHINE}",
)
def test_the_whole_step_on_an_arm_processor(
    step_model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NEON, as a Jetson's CPU has it; emulated, so this says that it is right, not how fast it is."""
    path = tmp_path / "step.onnx"
    onnx.save(step_model, path)
    graph = read_graph(path)
    step = NativeStep(compile_step(graph, find_compiler(), tmp_path))  # for its blocks
    work, state, wanted = _one_tick(step_model, step)
    monkeypatch.setenv("CC", ARM_COMPILER)
    compiler = find_compiler.__wrapped__()
    assert (compiler.lanes, compiler.registers, compiler.tuned) == (4, 32, ())
    (tmp_path / "arm").mkdir()
    stored = compile_step(graph, compiler, tmp_path / "arm")
    driver = tmp_path / "driver.c"
    driver.write_text(_ON_ARM, "utf-8")
    sizes = {
        "IN": step.inputs.size, "STATE": step.states.size, "OUT": step.outputs.size,
        "WEIGHTS": len(stored.weights), "SCRATCH": stored.scratch,
    }  # fmt: skip
    program = tmp_path / "program"
    (source,) = (tmp_path / "arm").glob("*.c")
    named = [f"-D{name}={size}" for name, size in sizes.items()]
    flags = ["-std=gnu11", "-O3", "-fopenmp-simd", "-w", "-static", *named]
    command = [ARM_COMPILER, *flags, str(driver), str(source), "-o", str(program), "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    given = work.block.memory.tobytes() + state.memory.tobytes() + stored.weights
    done = subprocess.run([ARM_MACHINE, str(program)], input=given, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    made = np.frombuffer(done.stdout, np.uint8)
    assert len(made) == step.outputs.size + step.states.size
    outputs = list(step.outputs.views(made[: step.outputs.size]).values())
    _hold_tick(step, outputs, made[step.outputs.size :], wanted)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_row_is_covered_once_by_vectors(lanes: int) -> None:
    for width in range(1, 200):
        covered = [c for first, n in pieces(width, lanes) for c in range(first, first + n)]
        assert covered == list(range(width))
        assert all(n in (1, 2, 4, 8, 16) and n <= lanes for _, n in pieces(width, lanes))


@pytest.mark.parametrize("seed", range(40))
def test_any_graph_of_these_operators(seed: int, tmp_path: Path) -> None:
    graph = RandomGraph(seed)
    inputs: Inputs = {n: (F, s) for n, s in graph.inputs.items()}
    made = model(graph.nodes, inputs, {n: (F, s) for n, s in graph.outputs.items()}, graph.constants)
    hold(made, inputs, tmp_path, feed_of(inputs, seed))


def _convolutions(*nodes: Any, outputs: dict[str, list[int]]) -> tuple[onnx.ModelProto, Inputs]:
    rng = np.random.default_rng(6)
    weights = {
        "w": 0.1 * rng.standard_normal((5, 4, 3, 3)), "v": 0.1 * rng.standard_normal((3, 4, 3, 3)),
        "u": 0.1 * rng.standard_normal((3, 2, 3, 3)), "b": rng.standard_normal(5),
    }  # fmt: skip
    constants = {n: a.astype(np.float32) for n, a in weights.items()}
    constants |= {"one": np.array([1]), "three": np.array([3])}
    inputs: Inputs = {"x": (F, [1, 4, 6, 6]), "z": (F, [1, 2, 6, 6])}
    return model(list(nodes), inputs, {n: (F, s) for n, s in outputs.items()}, constants), inputs


@pytest.mark.parametrize("first", [0, 1])
def test_convolutions_that_read_one_tensor_with_different_borders(first: int, tmp_path: Path) -> None:
    both = [
        helper.make_node("Conv", ["r", "w", "b"], ["wide"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["r", "v"], ["narrow"], pads=[0, 0, 0, 0]),
    ]
    nodes = [helper.make_node("Relu", ["x"], ["r"]), both[first], both[1 - first]]
    made, inputs = _convolutions(*nodes, outputs={"wide": [1, 5, 6, 6], "narrow": [1, 3, 4, 4]})
    hold(made, inputs, tmp_path)


def test_convolutions_of_a_part_and_of_a_whole(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["all"], pads=[1, 1, 1, 1]),
        helper.make_node("Slice", ["r", "one", "three", "one"], ["part"]),
        helper.make_node("Conv", ["part", "u"], ["some"], pads=[1, 1, 1, 1]),
        helper.make_node("Neg", ["z"], ["n"]),
        helper.make_node("Relu", ["z"], ["p"]),
        helper.make_node("Concat", ["n", "p"], ["k"], axis=1),
        helper.make_node("Conv", ["k", "v"], ["joined"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["n", "u"], ["half"], pads=[1, 1, 1, 1]),
    ]
    outputs = {"all": [1, 5, 6, 6], "some": [1, 3, 6, 6], "joined": [1, 3, 6, 6], "half": [1, 3, 6, 6]}
    made, inputs = _convolutions(*nodes, outputs=outputs)
    hold(made, inputs, tmp_path)


def test_a_convolution_that_is_an_output_and_rectified_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Relu", ["c"], ["r"])]
    made, inputs = _convolutions(*nodes, outputs={"c": [1, 5, 4, 4], "r": [1, 5, 4, 4]})
    hold(made, inputs, tmp_path)
    made, inputs = _convolutions(nodes[0], outputs={"c": [1, 5, 4, 4]})
    hold(made, inputs, tmp_path)


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_numbers_are_reduced_as_such(sign: int, tmp_path: Path) -> None:
    inputs: Inputs = {"a": (LONG, [2, 1024])}
    ops = ["ReduceSum", "ReduceMax", "ReduceMin"]
    nodes = [helper.make_node(op, ["a", "last"], [f"{op} n"], keepdims=0) for op in ops]
    nodes += [helper.make_node("Clip", [f"{op} n", "low", "high"], [f"{op} c"]) for op in ops]
    nodes += [helper.make_node("Cast", [f"{op} c"], [op], to=F) for op in ops]
    feed = np.tile([1 << 24, -(1 << 24) + 1], (2, 512))  # sums to 512; in floats it would not
    for given in (feed, np.full((2, 1024), 7)):
        constants = {"last": np.array([1]), "low": np.array(-600), "high": np.array(1 << 23)}
        made = model(nodes, inputs, {op: (F, [2]) for op in ops}, constants)
        hold(made, inputs, tmp_path, {"a": (sign * given).astype(np.int64)})


def test_the_ends_of_exp_and_of_what_is_no_number(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [48]), "b": (F, [48])}
    nodes = [helper.make_node("Exp", ["a"], ["e"]), helper.make_node("Max", ["a", "b"], ["m"])]
    given = np.linspace(80, 89.5, 48).astype(np.float32)
    given[:4] = [np.inf, -np.inf, -200.0, 1.0]
    other = np.zeros(48, np.float32)
    other[3] = np.nan
    feed = {"a": given, "b": other}
    hold(model(nodes, inputs, {"e": (F, [48]), "m": (F, [48])}), inputs, tmp_path, feed)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([helper.make_node("Max", ["a", "a", "a"], ["y"])], "another number of inputs than 3"),
        ([helper.make_node("LayerNormalization", ["a", "g"], ["y", "mean"], axis=-1)], "of one output only"),
        ([helper.make_node("LayerNormalization", ["a", "g"], ["y"], axis=-1, epsilon=float("nan"))], "epsilon nan is outside"),
        (
            [helper.make_node("Expand", ["a", "wide"], ["x"]), helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
            "rows of up to",
        ),
        ([helper.make_node("Conv", ["p", "v"], ["y"])], "plain convolutions of pictures only"),
    ],
)  # fmt: skip
def test_what_is_written_for_less_refuses_more(nodes: list[Any], said: str, tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3, 1]), "v": (F, [2, 1, 1, 1]), "p": (F, [1, 1, 4, 4])}
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(np.ones(1, np.float32), "g"), numpy_helper.from_array(np.array([3, 1 << 15]), "wide")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    with pytest.raises(EngineError, match=said):
        run_native(made, {}, tmp_path)


def test_other_opsets_and_domains_are_refused(tmp_path: Path) -> None:
    inputs: Inputs = {"a": (F, [3])}
    made = model([helper.make_node("Relu", ["a"], ["y"])], inputs, {"y": (F, [3])})
    made.opset_import[0].version = 13
    with pytest.raises(EngineError, match="plain ONNX of opset 18 to 21"):
        run_native(made, {}, tmp_path)
    made.opset_import[0].version = 20
    made.opset_import.append(helper.make_opsetid("other", 1))
    made.graph.node[0].domain = "other"
    with pytest.raises(EngineError, match="plain ONNX of opset"):
        run_native(made, {}, tmp_path)


def test_names_in_a_graph_do_not_reach_the_compiler(tmp_path: Path) -> None:
    evil = '*/ } int x = system("touch was-here"); /* "\n#error'
    nodes = [
        helper.make_node("Relu", [evil], [evil + "y"]),
        helper.make_node("Transpose", [evil + "y"], [evil + "z"], perm=[1, 0]),
    ]
    inputs: Inputs = {evil: (F, [4, 5])}
    hold(model(nodes, inputs, {evil + "z": (F, [5, 4])}), inputs, tmp_path)
    assert all("touch" not in c.read_text("utf-8") for c in tmp_path.glob("*.c"))


@pytest.mark.parametrize(
    ("op", "kind", "shape", "attributes", "said"),
    [
        ("Erf", F, [3], {}, "the operator 'Erf'"),
        ("Softmax", F, [3, 4], {"axis": 0}, "over the last axis only"),
        ("Relu", TensorProto.DOUBLE, [3], {}, "a type that the native engine does not know"),
        ("Relu", F, [1 << 14, 1 << 14], {}, "the native engine takes"),
    ],
)
def test_a_graph_that_cannot_be_written_is_refused_in_one_line(
    op: str, kind: int, shape: list[int], attributes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    made = model([helper.make_node(op, ["a"], ["y"], **attributes)], {"a": (kind, shape)}, {"y": (kind, shape)})
    with pytest.raises(EngineError, match=said):
        run_native(made, {}, tmp_path)
    assert not list(tmp_path.glob("*.so"))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="onnx cannot read it"):
        read_graph(tmp_path / "x.onnx")


def test_a_compiler_that_is_not_there_or_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = find_compiler.__wrapped__
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(MissingPartError, match=r"CC is '/nowhere/cc'.*apt install gcc"):
        find()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(MissingPartError, match="does not work as a C compiler"):
        find()
    monkeypatch.setenv("CC", "true")
    with pytest.raises(MissingPartError, match="does not work as a C compiler"):
        find()
    monkeypatch.setenv("CC", "'")
    with pytest.raises(MissingPartError, match="which is not there"):
        find()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingPartError, match="no cc, gcc or clang found"):
        find()
