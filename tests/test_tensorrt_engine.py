"""The TensorRT engine around TensorRT: buffers, states, graphs, errors; on doubles, as no GPU is at hand (docs/jetson.md)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_rig import Rig, purge

from clcr_edge.errors import EngineError, MissingPartError, StreamError
from clcr_edge.runtime.arena import Arena
from clcr_edge.runtime.golden import compare, rolled_out
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.tensorrt_api import load_tensorrt, may_need_weak_typing

Make = Callable[..., Rig]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, proof_bundle: Path) -> Generator[Make, None, None]:
    yield lambda version="10.3.0", graphs=None: Rig(monkeypatch, proof_bundle, version, graphs)
    purge()


def worst(engine: Any, rig: Rig) -> float:
    return max(v["max_abs"] for v in compare(engine, rig.golden).values())


def test_golden_vectors_hold_without_cuda_graphs(make: Make) -> None:
    rig = make()
    engine = rig.engine()
    assert worst(engine, rig) < 1e-4
    assert engine.cuda_graph is False
    assert rig.cuda.counts["executed"] == len(rig.golden.inputs)


def test_golden_vectors_hold_with_two_graphs_for_each_stream(make: Make) -> None:
    rig = make(graphs="")
    engine = rig.engine()
    assert worst(engine, rig) < 1e-4
    assert engine.cuda_graph is True
    assert rig.driver is not None
    assert rig.cuda.counts["executed"] == 2, "one plain step for each direction, before its capture"
    assert rig.cuda.counts["captured"] == 2
    assert rig.driver.launched == len(rig.golden.inputs) - 2
    assert rig.driver.destroyed == 0


@pytest.mark.parametrize("graphs", [None, ""])
def test_streams_that_come_and_go_use_the_same_memory_from_zero(make: Make, graphs: str | None) -> None:
    rig = make(graphs=graphs)
    engine = rig.engine()
    first = rolled_out(engine, rig.golden)
    before = dict(rig.cuda.counts)
    for _ in range(5):
        again = rolled_out(engine, rig.golden)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    assert rig.cuda.counts["allocated"] == before["allocated"]
    if rig.driver is not None:
        assert rig.cuda.counts["executed"] == before["executed"], "the graphs are there already"
        del engine
        gc.collect()
        assert rig.driver.destroyed == 2
        assert not rig.driver.graphs


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch"]
)
def test_a_driver_that_refuses_graphs_is_run_plainly(make: Make, call: str) -> None:
    rig = make(graphs=call)
    engine = rig.engine()
    assert worst(engine, rig) < 1e-4
    assert engine.cuda_graph is False
    assert rig.cuda.counts["captured"] <= 1, "it must not try again at every tick"


@pytest.mark.parametrize("graphs", [None, ""])
def test_streams_share_an_engine_and_do_not_mix(make: Make, graphs: str | None) -> None:
    rig = make(graphs=graphs)
    engine = rig.engine()
    reference = OnnxEngine.from_bundle(rig.bundle, "fp32")
    ticks = rig.golden.inputs[:12]
    streams = {"forth": list(ticks), "back": list(ticks[::-1])}
    made: dict[str, list[Any]] = {name: [] for name in streams}
    states = {name: engine.initial_state() for name in streams}
    for index in range(len(ticks)):
        for name, inputs in streams.items():
            outputs, states[name] = engine.step(inputs[index], states[name])
            made[name].append(outputs.probs)
    for name, inputs in streams.items():
        state = reference.initial_state()
        for index, given in enumerate(inputs):
            outputs, state = reference.step(given, state)
            np.testing.assert_allclose(made[name][index], outputs.probs, atol=1e-6)
        for key, value in state.items():
            np.testing.assert_allclose(states[name][key], value, atol=1e-6, err_msg=key)


def test_a_given_state_is_not_changed(make: Make) -> None:
    rig = make(graphs="")
    engine, ticks = rig.engine(), rig.golden.inputs
    state = engine.initial_state()
    for inputs in ticks[:6]:
        _, state = engine.step(inputs, state)
    once, after = engine.step(ticks[6], state)
    again, _ = engine.step(ticks[6], state)
    np.testing.assert_array_equal(once.probs, again.probs)
    other, _ = engine.step(ticks[7], state)
    assert not np.array_equal(once.probs, other.probs)
    # The branch took a lane of its own: the first one goes on undisturbed.
    plain = rolled_out(engine, rig.golden)["probs"]
    np.testing.assert_allclose(engine.step(ticks[7], after)[0].probs, plain[7], atol=1e-6)


def test_a_state_whose_memory_was_used_again_is_refused_unless_it_was_read(make: Make) -> None:
    rig = make()
    engine, ticks = rig.engine(), rig.golden.inputs
    first = engine.initial_state()
    _, second = engine.step(ticks[0], first)
    kept = dict(second)
    _, third = engine.step(ticks[1], second)
    _, fourth = engine.step(ticks[2], third)
    with pytest.raises(StreamError, match="3 steps old"):
        engine.step(ticks[0], first)
    with pytest.raises(StreamError, match="used again"):
        dict(first)
    del third
    assert {k: v.shape for k, v in second.items()} == {k: v.shape for k, v in kept.items()}, "it was read in time"
    np.testing.assert_allclose(engine.step(ticks[1], kept)[0].probs, rolled_out(engine, rig.golden)["probs"][1], atol=1e-6)
    assert len(fourth) == len(engine.state_names)


def test_a_state_of_the_wrong_shape_is_refused(make: Make) -> None:
    rig = make()
    engine = rig.engine()
    state = dict(engine.initial_state())
    name = next(iter(state))
    with pytest.raises(StreamError, match=f"state {name}"):
        engine.step(rig.golden.inputs[0], {**state, name: np.zeros(3, np.float32)})
    with pytest.raises(StreamError, match="state"):
        engine.step(rig.golden.inputs[0], {})


@pytest.mark.parametrize("integrated", [False, True])
def test_a_step_copies_inputs_and_outputs_and_never_a_state(make: Make, integrated: bool) -> None:
    rig = make(graphs="")
    rig.cuda.gpu["integrated"] = integrated
    engine = rig.engine()
    state = engine.initial_state()
    for inputs in rig.golden.inputs[:4]:
        _, state = engine.step(inputs, state)
    before = dict(rig.cuda.counts)
    for inputs in rig.golden.inputs[4:14]:
        _, state = engine.step(inputs, state)
    moved = {way: rig.cuda.counts[way] - before.get(way, 0) for way in ("to device", "to host", "allocated")}
    inputs_size = sum(-(-getattr(rig.golden.inputs[0], n).nbytes // 256) * 256 for n in vars(rig.golden.inputs[0]))
    if integrated:
        assert moved == {"to device": 0, "to host": 0, "allocated": 0}
    else:
        assert moved["to device"] == 10 * inputs_size
        assert moved["to host"] == 10 * 256 * 6
        assert moved["allocated"] == 0
    np.testing.assert_allclose(rolled_out(engine, rig.golden)["probs"], rig.golden.outputs["probs"], atol=1e-4)


def test_a_plan_of_another_version_gives_tensorrts_reason(make: Make) -> None:
    rig = make(version="10.16.2")
    foreign = b"10.3.0;;;" + rig.plan().split(b";", 3)[3]
    with pytest.raises(EngineError, match=r"fp32 engine \(plan not compatible, expecting 10\.16\.2 got 10\.3\.0\)"):
        rig.engine(foreign)


def test_a_plan_that_is_no_step_graph_is_named(make: Make) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")
    rig = make()
    model = onnx.load(rig.bundle.graph("fp32"))
    next(o for o in model.graph.output if o.name == "probs").name = "logits"
    for node in model.graph.node:
        node.output[:] = ["logits" if o == "probs" else o for o in node.output]
    with pytest.raises(EngineError, match=r"not a step graph of this version \(see logits, probs\)"):
        rig.engine(b"10.3.0;;;" + model.SerializeToString())


def test_a_gpu_that_fails_is_one_line(make: Make) -> None:
    rig = make()
    engine = rig.engine()
    state = engine.initial_state()
    rig.cuda.gpu["fails"] = True
    with pytest.raises(EngineError, match=r"the GPU failed in a step .*illegal memory access"):
        engine.step(rig.golden.inputs[0], state)


def test_tensorrt_that_is_too_old_or_absent_says_what_to_do(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make(version="8.6.2")
    with pytest.raises(MissingPartError, match=r"TensorRT 8\.6\.2 is too old: 10\.3"):
        load_tensorrt()
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingPartError, match="system-site-packages"):
        load_tensorrt()


@pytest.mark.parametrize(("version", "weak"), [("10.3.0", True), ("10.11.0", True), ("10.13.3.9", False), ("11.4.0", False)])
def test_weak_typing_is_for_versions_that_may_need_it(version: str, weak: bool) -> None:
    assert may_need_weak_typing(version) is weak


def test_an_arena_aligns_and_does_not_overlap() -> None:
    kind = np.dtype(np.float32)
    arena = Arena({"a": ((3,), kind), "b": ((65,), kind), "c": ((), kind), "d": ((2, 2), np.dtype(np.int32))})
    assert [t.offset for t in arena.tensors.values()] == [0, 256, 768, 1024]
    assert arena.size == 1280
    views = arena.views(np.zeros(arena.size, np.uint8))
    for value, view in enumerate(views.values(), start=1):
        view[...] = value
    assert [float(v.sum()) for v in views.values()] == [3.0, 130.0, 3.0, 16.0]
