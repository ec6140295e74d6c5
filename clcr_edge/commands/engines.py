"""Opens the engine that a command asks for, or the one that `verify` chose on this machine."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from clcr_edge.errors import EngineError, MissingPartError

if TYPE_CHECKING:
    from clcr_edge.bundle import Bundle
    from clcr_edge.runtime.device_record import Verified
    from clcr_edge.runtime.engine import Engine


class EngineName(str, Enum):
    """An engine by name."""

    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"
    native = "native"


def open_engine(bundle: Bundle, name: EngineName | None, precision: str | None, note: Callable[[str], None]) -> Engine:
    """The engine of a name in a precision; None: what `verify` chose here, else ONNX Runtime in the export's precision.

    A TensorRT or native engine that is missing or does not fit this device is built first. Raises `MissingPartError`,
    `EngineError` or `BundleError`; if nobody asked for an engine by name, what is wrong with it becomes a note and ONNX Runtime
    goes on.
    """
    from clcr_edge.runtime.device_record import read_verified
    from clcr_edge.runtime.onnx_engine import OnnxEngine

    verified = read_verified(bundle, note)
    if name is EngineName.tensorrt:
        return _tensorrt(bundle, precision, verified.get(name.value), note)
    if name is EngineName.native:
        return _native(bundle, precision, note)
    if name is None and precision is None:
        fastest = min(verified.values(), key=lambda v: v.p50_ms, default=None)
        try:
            if fastest is not None and fastest.engine == EngineName.tensorrt.value:
                return _tensorrt(bundle, None, fastest, note)
            if fastest is not None and fastest.engine == EngineName.native.value and fastest.machine == native_line():
                from clcr_edge.export.native.ready import stored_native

                # Built by this user before, or not at all: the record travels with the bundle, and may be anybody's.
                built = stored_native(bundle)
                if built is not None:
                    return built
                note(f"the native engine is not built here; it is by: clcr-edge build {bundle.path} --engine native")
        except (MissingPartError, EngineError) as e:
            note(f"going on with ONNX Runtime: {e}")
    if precision is None:
        record = verified.get(EngineName.onnxruntime.value)
        if record is not None and record.machine == onnxruntime_line():
            precision = record.precision
    return OnnxEngine.from_bundle(bundle, precision)


def onnxruntime_line() -> str:
    """The machine as ONNX Runtime sees it, in one line: what a choice of `verify` holds for."""
    import onnxruntime

    from clcr_edge.runtime.machine import cpu_name

    return f"{cpu_name()}, ONNX Runtime {onnxruntime.__version__}"


def native_line() -> str:
    """The machine as the native engine sees it, in one line: what a choice of `verify` holds for."""
    from clcr_edge.runtime.machine import cpu_name

    return f"{cpu_name()}, native engine"


def _native(bundle: Bundle, precision: str | None, note: Callable[[str], None]) -> Engine:
    from clcr_edge.export.native.ready import open_native

    return open_native(bundle, precision, note)


def _tensorrt(bundle: Bundle, precision: str | None, record: Verified | None, note: Callable[[str], None]) -> Engine:
    from clcr_edge.commands.building import telling
    from clcr_edge.export.tensorrt_ready import BuildSettings, Teller, TensorRTMachine, ready_engine

    machine = TensorRTMachine()
    if precision is None:
        if record is not None and record.machine == machine.line:
            precision = record.precision
        else:
            precision = "fp32"
            reason = "not verified here yet" if record is None else f"verified on {record.machine}, found {machine.line}"
            note(f"{reason}: running fp32; the fastest is chosen by: clcr-edge verify {bundle.path} --engine tensorrt")
    with telling() as teller:
        stored, _ = ready_engine(machine, bundle, precision, BuildSettings(), Teller(note, teller.progress))
    return machine.engine(bundle, precision, stored)
