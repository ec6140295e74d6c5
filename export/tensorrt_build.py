"""ONNX -> TensorRT plan, on the device that will run it. One code path for 10.3, 10.13, 10.16 and 11.

The graph alone says what is computed in which type (strong typing, explicit Q/DQ): no precision flag is set. Where the version
may need it (10.3 to 10.11) and strong typing fails, the same graph is tried once with weak typing, and the result says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clcr_edge.errors import EngineError
from clcr_edge.export.build_memory import MIB
from clcr_edge.export.build_progress import BuildProgress
from clcr_edge.runtime.tensorrt_api import may_need_weak_typing
from clcr_edge.runtime.tensorrt_log import make_log

if TYPE_CHECKING:
    import tensorrt as trt

# Weak typing only: which types it may choose from. These flags are gone in 11, where weak typing is gone as well.
_WEAK_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}


@dataclass(frozen=True)
class Built:
    """A plan, the timings to keep, how it was typed, how long it took, and what was said on the way."""

    plan: bytes
    timings: bytes
    typing: str
    seconds: float
    notes: tuple[str, ...]


def build_plan(
    api: Any,
    onnx: bytes,
    precision: str,
    *,
    workspace_mib: int,
    level: int,
    timings: bytes,
    tell: Callable[[BuildProgress], None],
    cancelled: Callable[[], bool],
) -> Built:
    """Build a plan. timings: of an earlier build, or b"". tell: called at every step of TensorRT's.

    cancelled: asked at every step; a build that it ends raises `KeyboardInterrupt`. Raises `EngineError` with the reason.
    """
    notes: list[str] = []
    begun = time.monotonic()
    typings = ["strong", "weak"] if may_need_weak_typing(api.__version__) else ["strong"]
    for typing in typings:
        log = make_log(api)
        monitor = _monitor(api, BuildProgress(), tell, cancelled)
        try:
            plan, kept = _build(api, log, monitor, onnx, precision, typing, workspace_mib, level, timings)
        except EngineError as e:
            if cancelled():
                raise KeyboardInterrupt from None
            if typing == typings[-1]:
                raise
            notes.append(f"strong typing failed ({e}); trying weak typing")
            continue
        return Built(plan, kept, typing, time.monotonic() - begun, tuple(notes))
    raise AssertionError("unreachable: the last typing returns or raises")


def _build(
    api: Any,
    log: Any,
    monitor: trt.IProgressMonitor,
    onnx: bytes,
    precision: str,
    typing: str,
    workspace_mib: int,
    level: int,
    timings: bytes,
) -> tuple[bytes, bytes]:
    builder: trt.Builder = api.Builder(log)
    # By name: the numbers of these flags differ between versions. In 11 the flag is kept and always on.
    strong = 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition | None = builder.create_network(strong if typing == "strong" else 0)
    if network is None:
        raise EngineError(f"TensorRT makes no {typing}ly typed network ({log.reason()})")
    parser: trt.OnnxParser = api.OnnxParser(network, log)
    if not parser.parse(onnx):
        raise EngineError(f"TensorRT {api.__version__} cannot read the {precision} graph: {_parse_error(parser, log)}")
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, workspace_mib * MIB)
    config.builder_optimization_level = level
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED  # names in trtexec --dumpProfile
    config.clear_flag(api.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of the fraction
    if typing == "weak":
        for name in _WEAK_FLAGS[precision]:
            config.set_flag(getattr(api.BuilderFlag, name))
    cache: trt.ITimingCache | None = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):  # another device's, or a broken one
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    config.progress_monitor = monitor
    serialized: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(
            f"TensorRT {api.__version__} cannot build the {precision} graph ({log.reason()}); "
            "if memory is short give a smaller --workspace, otherwise please report this with clcr-edge doctor"
        )
    kept: trt.ITimingCache | None = config.get_timing_cache()
    return bytes(serialized), b"" if kept is None else bytes(kept.serialize())


def _parse_error(parser: trt.OnnxParser, log: Any) -> str:
    if parser.num_errors == 0:
        return str(log.reason())
    error: trt.ParserError = parser.get_error(0)
    where = error.node_name() or f"node {error.node()}"
    return f"{where} ({error.node_operator() or 'no operator'}): {' '.join(str(error.desc()).split())[:300]}"


def _monitor(
    api: Any, progress: BuildProgress, tell: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
) -> trt.IProgressMonitor:
    class Monitor(api.IProgressMonitor):  # type: ignore[misc]  # a base class that exists only when TensorRT is there
        """Called by TensorRT from its own code: nothing may be raised through it."""

        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)  # pybind wants the base named, not super()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._quietly(lambda: progress.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._quietly(lambda: progress.step(phase_name, step))
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            self._quietly(lambda: progress.finish(phase_name))

        def _quietly(self, change: Callable[[], None]) -> None:
            try:
                change()
                tell(progress)
            except Exception:  # a broken terminal must not end a build of ten minutes
                return

    return Monitor()
