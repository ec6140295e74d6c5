"""Where the machine's floor lies: what a step must compute and read, what one thread can do, and what a graph node costs."""

from __future__ import annotations

import ctypes
import math
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from clcr_edge.export.native.compiler import find_compiler
from clcr_edge.runtime.onnx_engine import open_graph


def _best(run: Any, repeats: int) -> float:
    """Shortest of so many runs, seconds: a floor is what the machine can do, not what it did beside others."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def multiply_adds_per_s() -> float:
    """fp32 operations of one thread on registers alone: what numpy's library does not always reach."""
    compiler = find_compiler()
    sums, rounds, lanes = compiler.registers * 3 // 4, 200_000, compiler.lanes
    names, kind = [f"s{k}" for k in range(sums)], "w" if platform.machine() == "aarch64" else "v"
    source = "\n".join(
        [
            f"typedef float v __attribute__((vector_size({4 * lanes})));",
            "float run(int rounds, float by) {",
            *(f"v {s} = {{{k}.0f}};" for k, s in enumerate(names)),
            "v f = {0}; f += by;",
            "for (int i = 0; i < rounds; i++) {",
            *(f'{s} = {s} * f + f; __asm__ volatile("" : "+{kind}"({s}));' for s in names),
            "}",
            f"v all = {' + '.join(names)}; return all[0];",
            "}",
        ]
    )
    with tempfile.TemporaryDirectory(prefix="clcr-edge-") as folder:
        (Path(folder) / "peak.c").write_text(source, "utf-8")
        compiler.build(Path(folder) / "peak.c", Path(folder) / "peak.so")
        run = ctypes.CDLL(str(Path(folder) / "peak.so")).run
        run.argtypes, run.restype = [ctypes.c_int, ctypes.c_float], ctypes.c_float
        return 2 * sums * lanes * rounds / _best(lambda: run(rounds, 0.5), 20)


def machine() -> dict[str, float]:
    """fp32 peak of one thread (on registers, and of a large matrix product); read bandwidth of each cache (a dot product)."""
    n = 768
    a, b = np.random.default_rng(0).random((2, n, n), np.float32)
    out = np.empty((n, n), np.float32)
    peak = 2 * n**3 / _best(lambda: np.matmul(a, b, out=out), 40)
    found = {"fp32_gflops": round(max(peak, multiply_adds_per_s()) / 1e9, 1), "blas_gflops": round(peak / 1e9, 1)}
    for name, kib, repeats in (("l2", 512, 4_000), ("l3", 8 * 1024, 300), ("memory", 256 * 1024, 8)):
        x = np.ones(kib * 128, np.float32)  # two operands make up the size
        y = np.ones(kib * 128, np.float32)
        found[f"read_{name}_gb_s"] = round(kib * 1024 / _best(lambda x=x, y=y: np.dot(x, y), repeats) / 1e9, 1)
    return found


def node_cost_us() -> float:
    """What ONNX Runtime takes for one node that computes next to nothing: a chain of additions of 64 numbers."""
    length = 200
    nodes = [onnx.helper.make_node("Add", [f"x{i}", "one"], [f"x{i + 1}"]) for i in range(length)]
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "chain", [shape("x0", 1, [64]), shape("one", 1, [64])], [shape(f"x{length}", 1, [64])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = open_graph(model.SerializeToString())
    feed = {"x0": np.zeros(64, np.float32), "one": np.ones(64, np.float32)}
    empty = onnx.helper.make_graph(nodes[:1], "one", graph.input, [shape("x1", 1, [64])])
    single = open_graph(onnx.helper.make_model(empty, opset_imports=model.opset_import, ir_version=10).SerializeToString())
    long, short = (_best(lambda s=s: s.run(None, feed), 500) for s in (session, single))
    return (long - short) / (length - 1) * 1e6


def work(model: onnx.ModelProto, gathered: set[str]) -> dict[str, Any]:
    """Multiply-adds, and the bytes a step must touch once: weights, inputs, states in and out. `gathered`: tables of which
    only a few rows are read; they count as nothing."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {i.name: list(i.dims) for i in graph.initializer}
    macs: Counter[str] = Counter()
    for node in graph.node:
        out = math.prod(shapes.get(node.output[0], [0]))
        if node.op_type == "Conv":
            macs["Conv"] += out * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            macs[node.op_type] += out * shapes[node.input[0]][-1]
        elif node.op_type == "Einsum":
            macs["Einsum"] += out * shapes[node.input[0]][-1]
    sizes = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.INT64: 8, onnx.TensorProto.INT32: 4, onnx.TensorProto.BOOL: 1}
    weights = sum(math.prod(i.dims) * sizes.get(i.data_type, 4) for i in graph.initializer if i.name not in gathered)
    ends = {v.name: 4 * math.prod(shapes[v.name]) for v in (*graph.input, *graph.output)}
    activations = sum(4 * math.prod(shapes.get(o, [0])) for n in graph.node for o in n.output if o not in ends)
    return {
        "multiply_adds": sum(macs.values()),
        "by_operator": dict(macs),
        "weight_bytes": weights,
        "input_and_state_bytes": sum(ends[v.name] for v in graph.input),
        "output_and_state_bytes": sum(ends[v.name] for v in graph.output),
        "activation_bytes": activations,
        "nodes": len(graph.node),
    }


def floor_us(found: dict[str, Any], speed: dict[str, float]) -> dict[str, float]:
    """The least time: arithmetic at peak, and the bytes above at each level's read speed (activations stay in L1 and L2)."""
    moved = found["weight_bytes"] + found["input_and_state_bytes"] + found["output_and_state_bytes"]
    compute = 2 * found["multiply_adds"] / speed["fp32_gflops"] / 1e3
    return {
        "compute_us": round(compute, 1),
        **{f"bytes_us_{level}": round(moved / speed[f"read_{level}_gb_s"] / 1e3, 1) for level in ("l2", "l3", "memory")},
    }
