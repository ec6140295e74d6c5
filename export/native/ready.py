"""A compiled step that is ready for this machine: the stored one if it fits, otherwise built now and held to ONNX Runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from clcr_edge.bundle import Bundle
from clcr_edge.errors import EngineError
from clcr_edge.export.native.compiler import Compiler, find_compiler
from clcr_edge.export.native.graph import Graph, read_graph
from clcr_edge.export.native.products import Target
from clcr_edge.export.native.program import write_program
from clcr_edge.runtime import arena, native_engine, native_store
from clcr_edge.runtime.arena import Arena
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.golden import FILE as GOLDEN
from clcr_edge.runtime.golden import Golden, differences, load_golden, rolled_out
from clcr_edge.runtime.native_engine import NativeEngine
from clcr_edge.runtime.native_store import StoredStep, Tensors, folder_of, load_step, save_step
from clcr_edge.runtime.onnx_engine import OnnxEngine

PRECISION = "fp32"
LIMIT = 1e-4  # from ONNX Runtime, states rolled out over the golden ticks; fp32 sums in another order differ by some 1e-6
_NEXT = "next_"
_INPUTS = tuple(field.name for field in dataclasses.fields(StepInputs))


@cache
def writer() -> str:
    """Names what writes the C, and what its blocks and its call are agreed with: the hash of that code."""
    found = hashlib.sha256()
    agreed = [Path(str(module.__file__)) for module in (arena, native_engine, native_store)]
    for file in [*sorted(Path(__file__).parent.glob("*.py")), *agreed]:
        found.update(file.read_bytes())
    return found.hexdigest()


def ready_step(
    bundle: Bundle, precision: str | None, note: Callable[[str], None], force: bool = False
) -> tuple[StoredStep, bool]:
    """The compiled step of a bundle, and whether it was built now.

    Raises `EngineError` for a precision other than fp32, a graph or compiler that does not do, or a result that is not ONNX
    Runtime's; `MissingPartError` without a compiler or the package onnx.
    """
    if precision not in (None, PRECISION):
        raise EngineError(f"the native engine runs {PRECISION} only, not {precision}; leave --precision out or use onnxruntime")
    path = bundle.graph(PRECISION)
    folder = folder_of(path, writer())
    stored = None if force else load_step(folder)
    if stored is not None:
        return stored, False
    compiler = find_compiler()
    note("building the native engine: once for this bundle and machine, a few seconds")
    with tempfile.TemporaryDirectory(prefix="clcr-edge-") as scratch:
        made = compile_step(read_graph(path), compiler, Path(scratch))
        golden = load_golden(bundle.path / GOLDEN)
        difference = _difference(NativeEngine(made, bundle.config), OnnxEngine(path, bundle.config, PRECISION), golden)
        if not difference <= LIMIT:
            raise EngineError(
                f"{bundle.path}: the native engine is off by {difference:.1e} from ONNX Runtime (at most {LIMIT:g}), so it is "
                f"not used; please report this with: {made.compiler}"
            )
        return save_step(folder, dataclasses.replace(made, difference=difference)), True


def stored_native(bundle: Bundle) -> NativeEngine | None:
    """The native engine of a bundle if it was built here before, else None. Builds nothing."""
    stored = load_step(folder_of(bundle.graph(PRECISION), writer()))
    return None if stored is None else NativeEngine(stored, bundle.config)


def open_native(bundle: Bundle, precision: str | None = None, note: Callable[[str], None] = lambda text: None) -> NativeEngine:
    """The native engine of a bundle, built if need be: see `ready_step`."""
    stored, _ = ready_step(bundle, precision, note)
    return NativeEngine(stored, bundle.config)


def blocks_of(graph: Graph, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[Tensors, Tensors, Tensors]:
    """(inputs, states, outputs) of a graph whose other inputs are states, each with an output next_NAME of the same kind."""
    kinds = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in graph.kinds.items()}
    states = {n: kinds[n] for n in graph.inputs if n not in inputs}
    wrong = {*inputs} - {*graph.inputs} | {*graph.outputs} ^ {*outputs, *(_NEXT + n for n in states)}
    wrong |= {n for n in states if _NEXT + n in kinds and kinds[_NEXT + n] != kinds[n]}
    wrong |= {n for n in outputs if n in kinds and kinds[n][1] != np.float32}
    if wrong:
        raise EngineError(f"not a step graph of this version (see {', '.join(sorted(wrong)[:4])}); export again")
    return {n: kinds[n] for n in inputs}, states, {n: kinds[n] for n in outputs}


def compile_step(
    graph: Graph,
    compiler: Compiler,
    folder: Path,
    inputs: tuple[str, ...] = _INPUTS,
    outputs: tuple[str, ...] | None = None,
) -> StoredStep:
    """Write a step graph as C and compile it in a folder. Its difference is not measured yet: infinity."""
    outputs = outputs or tuple(n for n in graph.outputs if not n.startswith(_NEXT))
    given, states, made = blocks_of(graph, inputs, outputs)
    places: dict[str, tuple[str, int]] = {}
    for block, tensors, prefix in (("in", given, ""), ("state", states, ""), ("out", made, ""), ("next", states, _NEXT)):
        places |= {prefix + n: (block, t.offset) for n, t in Arena(tensors).tensors.items()}
    begun = time.perf_counter()
    try:
        program = write_program(graph, places, Target(compiler.lanes, compiler.registers))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as e:
        # A graph that is no graph of ours may break any rule; it is refused, never half written.
        what = f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
        raise EngineError(f"the native engine cannot write this graph ({what!r}); use --engine onnxruntime") from e
    # A name of its own: a process that meets a path again gets the library that it loaded from there before.
    name = hashlib.sha256("\n".join([program.source, *compiler.tuned]).encode()).hexdigest()[:12]
    source, library = folder / f"step.{name}.c", folder / f"step.{name}.so"
    source.write_text(program.source, "utf-8")
    compiler.build(source, library)
    seconds = time.perf_counter() - begun
    return StoredStep(
        library, program.weights, program.scratch, given, states, made, compiler.line, seconds, float("inf")
    )


def _difference(engine: NativeEngine, reference: OnnxEngine, golden: Golden) -> float:
    wanted = dataclasses.replace(golden, outputs=rolled_out(reference, golden))
    return max(found["max_abs"] for found in differences(rolled_out(engine, golden), wanted).values())
